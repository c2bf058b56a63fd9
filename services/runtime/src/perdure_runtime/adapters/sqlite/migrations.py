"""The tables, and how an older file becomes one of today's. A released migration never changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from perdure_core.task_engine.authority import marks
from perdure_runtime.errors import UnfitDatabase
from perdure_schemas.codec import decode_change, decode_events
from perdure_schemas.messages import RunChanged

_MIGRATIONS: tuple[str, ...] = (
    # 1
    """
    CREATE TABLE IF NOT EXISTS subscriptions (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, topic TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY, subscription INTEGER NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, reason TEXT
    );
    CREATE TABLE IF NOT EXISTS heads (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, workflow_id TEXT NOT NULL, version INTEGER NOT NULL,
        run_id TEXT NOT NULL, seq INTEGER NOT NULL, runs INTEGER NOT NULL, run INTEGER NOT NULL, expires_at INTEGER,
        commit_id TEXT NOT NULL, UNIQUE (namespace, workflow_id)
    );
    CREATE INDEX IF NOT EXISTS heads_expiry ON heads (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE IF NOT EXISTS runs (
        run INTEGER PRIMARY KEY, head INTEGER NOT NULL, run_id TEXT NOT NULL, UNIQUE (head, run_id)
    );
    CREATE TABLE IF NOT EXISTS events (
        run INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (run, first_seq)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS causes (
        head INTEGER NOT NULL, cause TEXT NOT NULL, run INTEGER NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (head, cause)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tombstones (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, workflow_id TEXT NOT NULL, run_id TEXT NOT NULL,
        expires_at INTEGER NOT NULL, UNIQUE (namespace, workflow_id, run_id)
    );
    CREATE INDEX IF NOT EXISTS tombstones_expiry ON tombstones (expires_at);
    CREATE TABLE IF NOT EXISTS tasks (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, task_id TEXT NOT NULL, version INTEGER NOT NULL,
        record BLOB NOT NULL, expires_at INTEGER, UNIQUE (namespace, task_id)
    );
    CREATE INDEX IF NOT EXISTS tasks_expiry ON tasks (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE IF NOT EXISTS timers (
        namespace TEXT NOT NULL, shard INTEGER NOT NULL, timer_id TEXT NOT NULL, due_at INTEGER NOT NULL,
        data BLOB NOT NULL, PRIMARY KEY (namespace, shard, timer_id)
    );
    CREATE INDEX IF NOT EXISTS timers_due ON timers (namespace, shard, due_at);
    CREATE TABLE IF NOT EXISTS listed_runs (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, workflow_id TEXT NOT NULL, run_id TEXT NOT NULL,
        version INTEGER NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, started_at INTEGER NOT NULL,
        waits_for TEXT NOT NULL, tags TEXT NOT NULL, attributes TEXT NOT NULL, data BLOB NOT NULL,
        UNIQUE (namespace, workflow_id, run_id)
    );
    CREATE INDEX IF NOT EXISTS listed_runs_started ON listed_runs (namespace, started_at, number);
    CREATE INDEX IF NOT EXISTS listed_runs_name ON listed_runs (namespace, name, started_at, number);
    CREATE INDEX IF NOT EXISTS listed_runs_status ON listed_runs (namespace, status, started_at, number);
    CREATE TABLE IF NOT EXISTS run_counts (
        namespace TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, runs INTEGER NOT NULL,
        PRIMARY KEY (namespace, name, status)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS listed_tasks (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, task_id TEXT NOT NULL, version INTEGER NOT NULL,
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, data BLOB NOT NULL, UNIQUE (namespace, task_id)
    );
    CREATE INDEX IF NOT EXISTS listed_tasks_run ON listed_tasks (namespace, workflow_id, run_id);
    CREATE TABLE IF NOT EXISTS blobs (
        namespace TEXT NOT NULL, blob_id TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (namespace, blob_id)
    );
    CREATE TABLE IF NOT EXISTS routing (
        namespace TEXT NOT NULL, workflow TEXT NOT NULL, current TEXT, ramping TEXT, ramping_percent INTEGER NOT NULL,
        PRIMARY KEY (namespace, workflow)
    ) WITHOUT ROWID;
    """,
    # 2: what histories say of tasks; how many workers died of a message
    """
    CREATE TABLE IF NOT EXISTS marks (
        run INTEGER NOT NULL, command_id TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (run, command_id, seq, kind)
    ) WITHOUT ROWID;
    ALTER TABLE messages ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
    """,
    # 3: runs that the lists have forgotten, so that a late change does not bring them back
    """
    CREATE TABLE IF NOT EXISTS forgotten_runs (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, workflow_id TEXT NOT NULL, run_id TEXT NOT NULL,
        expires_at INTEGER NOT NULL, UNIQUE (namespace, workflow_id, run_id)
    );
    CREATE INDEX IF NOT EXISTS forgotten_runs_expiry ON forgotten_runs (expires_at);
    """,
    # 4: blobs, by whose they are; the table before was never written
    """
    DROP TABLE IF EXISTS blobs;
    CREATE TABLE IF NOT EXISTS blobs (
        number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, workflow_id TEXT NOT NULL, run_id TEXT NOT NULL,
        blob_id TEXT NOT NULL, data BLOB NOT NULL, expires_at INTEGER,
        UNIQUE (namespace, workflow_id, run_id, blob_id)
    );
    CREATE INDEX IF NOT EXISTS blobs_expiry ON blobs (expires_at) WHERE expires_at IS NOT NULL;
    """,
    # 5: when the file was in use last, and until when nothing in transit expires: one row
    """
    CREATE TABLE IF NOT EXISTS last_use (at INTEGER NOT NULL, spare_until INTEGER NOT NULL);
    INSERT INTO last_use VALUES (0, 0);
    """,
    # 6: runs are counted by build, too
    """
    ALTER TABLE listed_runs ADD COLUMN build TEXT NOT NULL DEFAULT '';
    DROP TABLE run_counts;
    CREATE TABLE run_counts (
        namespace TEXT NOT NULL, name TEXT NOT NULL, build TEXT NOT NULL, status TEXT NOT NULL, runs INTEGER NOT NULL,
        PRIMARY KEY (namespace, name, build, status)
    ) WITHOUT ROWID;
    """,
    # 7: defaults of a workflow's runs
    """
    ALTER TABLE routing ADD COLUMN run_timeout_ms INTEGER;
    ALTER TABLE routing ADD COLUMN retention_ms INTEGER;
    """,
)


def _mark_histories(connection: sqlite3.Connection) -> None:
    """Of the runs that are there already."""
    for run, data in connection.execute("SELECT run, data FROM events"):
        rows = [
            (run, command_id, mark.seq, mark.kind, msgspec.msgpack.encode(mark))
            for event in decode_events(data)
            for command_id, mark in marks(event)
        ]
        connection.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", rows)


def _count_builds(connection: sqlite3.Connection) -> None:
    """Of the runs that are there already: their build is in what is listed of them."""
    for number, data in connection.execute("SELECT number, data FROM listed_runs").fetchall():
        run = decode_change(data)
        if isinstance(run, RunChanged) and run.build:
            connection.execute("UPDATE listed_runs SET build = ? WHERE number = ?", (run.build, number))
    connection.execute(
        "INSERT INTO run_counts SELECT namespace, name, build, status, count(*) FROM listed_runs GROUP BY 1, 2, 3, 4"
    )


_FILL: dict[int, Callable[[sqlite3.Connection], None]] = {2: _mark_histories, 6: _count_builds}
"""What a step does with the rows that are there, in the same transaction."""

LATEST = len(_MIGRATIONS)


class NewerDatabase(UnfitDatabase):
    """A later release of Perdure wrote this file. Use that release, or another file with --db."""


def check_ours(connection: sqlite3.Connection, name: str) -> None:
    """To be called before anything is written.

    Raises:
        UnfitDatabase: it is no database, or has tables, and none of Perdure's first ones.
    """
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise UnfitDatabase(f"{name} is no database of Perdure: {error}") from error
    others = tables - {"schema_version"}  # which is alone in it if a process died before the first step
    if others and not {"schema_version", "subscriptions", "heads"} <= tables:
        raise UnfitDatabase(f"{name} is the database of another program: it has a table {min(others)}")


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring the tables up to date, each step in a transaction of its own.

    Raises:
        NewerDatabase: the file is ahead of this release.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    version: int = row[0] or 0
    if version > LATEST:
        raise NewerDatabase(
            f"{name} has schema version {version}; this release of Perdure knows up to {LATEST}. "
            "Use the newer release, or another file with --db."
        )
    for number in range(version + 1, LATEST + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {_MIGRATIONS[number - 1]}")
        if number in _FILL:
            _FILL[number](connection)
        connection.execute("INSERT INTO schema_version VALUES (?)", (number,))
        connection.execute("COMMIT")
