"""Moves what was committed from the write-ahead log into the database file, beside the loop."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

_COMMITS = 500
"""Between two looks at the log: about 20 MB of it with fifty runs in flight, a few with one."""
_PASSES = 4
"""Each pass leaves what was committed meanwhile, less and less; the log starts anew once nothing is left."""
_LOG_PAGES_MAX = 8192
"""32 MiB. Under unbroken load every pass leaves something; above this the loop itself moves the little that is left."""


class Checkpoints:
    """A thread with a connection of its own: syncing the disk would stop the loop for milliseconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._commits = 0
        self._closed = False
        self._behind = False
        """The thread is done with a long log, but for what was committed meanwhile."""
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perdure-checkpoints", daemon=True)
        self._thread.start()

    def note_commit(self, connection: sqlite3.Connection) -> None:
        """Between two transactions of the loop's connection."""
        self._commits += 1
        if self._behind:
            self._behind = False
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if self._commits >= _COMMITS:
            self._commits = 0
            self._due.set()

    def close(self) -> None:
        self._closed = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            self._due.wait()
            self._due.clear()
            if self._closed:
                break
            try:
                if connection is None:
                    connection = sqlite3.connect(self._path, isolation_level=None)
                self._checkpoint(connection)
            except sqlite3.Error:
                # The log only grows until the next try; if it cannot, the writer's own error says why.
                continue
        if connection is not None:
            connection.close()

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        logged = 0
        for _ in range(_PASSES):
            _, logged, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if logged == moved:
                break
        self._behind = logged > _LOG_PAGES_MAX
