"""The one connection, and group commit: what one turn of the event loop writes is one transaction.

Statements run at once, on the loop's thread; who wrote waits until the COMMIT of its group. When anything of a
group fails, the whole group is rolled back and everybody in it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

from perdure_runtime.adapters.sqlite.checkpoints import Checkpoints
from perdure_runtime.adapters.sqlite.migrations import check_ours, migrate
from perdure_runtime.errors import AlreadyInUse, StorageContradiction, StorageUnavailable
from perdure_runtime.ports import Clock

log = logging.getLogger("perdure.sqlite")

FILE_MODE = 0o600
"""Of what is made: nobody else can read it. What is there keeps the mode that its owner gave it."""
_TELL_INTERVAL_MS = 10_000
"""Between two complaints about a file that cannot be written: everybody tries again all the time."""
_CACHE_KIB = 16 * 1024
"""Pages in memory: the inner nodes of every index of a busy day."""
_STATEMENTS = 256
"""More prepared statements than this package has."""

Row = tuple[Any, ...]


class Rider(Protocol):
    """Takes part in every transaction."""

    def before_commit(self) -> None:
        """Write what was saved up to be written in bulk."""
        ...

    def committed(self) -> None:
        """Called before those who wait go on."""
        ...

    def rolled_back(self) -> None:
        """Nothing of the transaction was written."""
        ...


class Group:
    """One transaction, and who waits for it."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: list[asyncio.Future[None]] = []


class Database:
    """Raises as `open_sqlite`."""

    def __init__(self, path: Path, clock: Clock, *, survive_power_loss: bool) -> None:
        self.clock = clock
        self._path = path
        self._group: Group | None = None
        self._told_at = 0
        self.riders: list[Rider] = []
        self._lock = _lock(path)
        try:
            _create(path)
            self._connection = self._connect("FULL" if survive_power_loss else "NORMAL")
            self._checkpoints = Checkpoints(path)
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise StorageUnavailable(f"{path} cannot be opened: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise

    def _connect(self, synchronous: Literal["NORMAL", "FULL"]) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=_STATEMENTS)
        try:
            check_ours(connection, str(self._path))
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # in the background instead, see `Checkpoints`
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            connection.execute("PRAGMA temp_store=MEMORY")
            migrate(connection, str(self._path))
        except BaseException:
            connection.close()
            raise
        return connection

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """What stands in the open transaction. Before telling anybody, wait for `settled`."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StorageUnavailable(f"{self._path} cannot be read: {error}") from error

    def write(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement in the open group; returns the number of rows it changed."""
        self.group()
        try:
            return self._connection.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            self._fail(error)

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self.group()
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            self._fail(error)

    def group(self) -> Group:
        """The open group; a new one begins a transaction that ends with this turn of the loop."""
        if self._group is None:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise StorageUnavailable(f"{self._path} cannot be written: {error}") from error
            group = self._group = Group()
            asyncio.get_running_loop().call_soon(self._flush, group)
        return self._group

    async def settled(self) -> None:
        """Wait until all that was written or read so far is durable.

        Raises:
            StorageUnavailable: it was rolled back.
        """
        if self._group is not None:
            waiter = asyncio.get_running_loop().create_future()
            self._group.waiters.append(waiter)
            await waiter

    def flush(self) -> None:
        """End the open group now. Its failure is told to those who wait for it alone."""
        if self._group is not None:
            self._flush(self._group)

    def close(self) -> None:
        self.flush()
        self._checkpoints.close()
        self._connection.close()
        os.close(self._lock)

    def _flush(self, group: Group) -> None:
        if group is not self._group:
            return  # it failed, or was flushed before its time
        try:
            for rider in self.riders:
                rider.before_commit()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(error)
            return
        except (StorageUnavailable, StorageContradiction):
            return  # rolled back by the statement that failed
        self._group = None
        for rider in self.riders:
            rider.committed()
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_result(None)
        try:
            self._checkpoints.note_commit(self._connection)
        except sqlite3.Error:
            pass  # all is committed; the log grows until a later try

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        """An outage is told to everybody in the group. A contradiction is its writer's alone: the others try again."""
        self._roll_back(error)
        if isinstance(error, sqlite3.IntegrityError):
            raise StorageContradiction(f"{self._path}: {error}") from error
        raise StorageUnavailable(self._reason(error)) from error

    def _roll_back(self, error: sqlite3.Error) -> None:
        group, self._group = self._group, None
        if self._connection.in_transaction:
            self._connection.rollback()
        assert group is not None
        self._tell(error)
        for rider in self.riders:
            rider.rolled_back()
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_exception(StorageUnavailable(self._reason(error)))

    def _tell(self, error: sqlite3.Error) -> None:
        if isinstance(error, sqlite3.IntegrityError):
            return  # the writer's defect, which the writer tells
        now = self.clock.now()
        if now - self._told_at >= _TELL_INTERVAL_MS:
            self._told_at = now
            extra = {"action": "database_unwritable"}
            log.error("%s; it is tried again until it can be", self._reason(error), extra=extra)

    def _reason(self, error: sqlite3.Error) -> str:
        return f"{self._path} could not be written, nothing was changed: {error}"


def _create(path: Path) -> None:
    """Payloads are in it, so that it is its owner's alone. SQLite gives the files beside it the same mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))


def _lock(path: Path) -> int:
    """Own the file as long as this process lives; the kernel lets go of the lock when it dies, however it dies."""
    side = f"{path}.lock"
    try:
        descriptor = os.open(side, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise StorageUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyInUse(
            f"{path} is in use by another process. Stop it, connect to it, or give this one another file with --db."
        ) from None
    return descriptor
