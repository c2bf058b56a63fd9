"""The tables, and how an older keyspace becomes one of today's. A released migration never changes.

Each statement may be repeated, so that a migration that died half-way is simply run again. Two that run at once are
kept apart by a lease, since concurrent changes of one schema are what Cassandra does not survive well.

Tables are changed before the processes that use them are replaced, and are not changed back when a release is: so each
step says which older releases go on working on what it leaves.
"""

from __future__ import annotations

import asyncio
import re
from uuid import uuid4

from cassandra import InvalidRequest

from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable

_LEASE_S = 90
"""Longer than any one statement takes; who died holds nobody up for longer."""
_RETRY_S = 0.5
_KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")

_GUARD = "CREATE TABLE IF NOT EXISTS schema_version (part text PRIMARY KEY, version int, holder text)"
_MARK = "ALTER TABLE schema_version ADD IF NOT EXISTS usable_from int"
"""Beside the version; run by every migration, so that keyspaces that were made without it get it."""


class _Step:
    """From one version of the schema to the next.

    Args:
        statements: each may be repeated.
        usable_from: the oldest version whose releases can still use the tables. A step that adds what they may leave
            alone says what the step before says. One that takes something away says which version is the first to do
            without: if that is its own, pods of the release before are not ready once they restart during the upgrade,
            and nobody can go back. Releases from before this mark, which are all of versions 1 to 3, want exactly their
            own version, whatever is said here.
    """

    def __init__(self, *statements: str, usable_from: int) -> None:
        self.statements = statements
        self.usable_from = usable_from


_MIGRATIONS: tuple[_Step, ...] = (
    _Step(
        # The head is static beside the newest commits of the same workflow id: one conditional write sets both.
        """
        CREATE TABLE IF NOT EXISTS commits (
            namespace text, workflow_id text, run_id text, first_seq bigint,
            version bigint static, head_run text static, head_seq bigint static, runs bigint static,
            commit_id text static, expires_at bigint static, archives int static, purging text static,
            buried boolean static,
            last_seq bigint, causes frozen<map<text, bigint>>, marks map<text, blob>, data blob, chunks text,
            PRIMARY KEY ((namespace, workflow_id), run_id, first_seq)
        ) WITH gc_grace_seconds = 86400
        """,
        # What grew too large to lie beside the head, in segments of a few megabytes.
        """
        CREATE TABLE IF NOT EXISTS archives (
            namespace text, workflow_id text, archive int, run_id text, first_seq bigint,
            last_seq bigint, data blob, chunks text,
            PRIMARY KEY ((namespace, workflow_id, archive), run_id, first_seq)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS archived_causes (
            namespace text, workflow_id text, run_id text, cause text, seq bigint,
            PRIMARY KEY ((namespace, workflow_id), cause, run_id)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS archived_marks (
            namespace text, workflow_id text, run_id text, command_id text, first_seq bigint, marks blob,
            PRIMARY KEY ((namespace, workflow_id), run_id, command_id, first_seq)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS chunked_commits (
            namespace text, workflow_id text, run_id text, commit_id text,
            PRIMARY KEY ((namespace, workflow_id, run_id), commit_id)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS chunks (
            namespace text, workflow_id text, run_id text, commit_id text, number int, data blob,
            PRIMARY KEY ((namespace, workflow_id, run_id, commit_id), number)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS tombstones (
            namespace text, workflow_id text, run_id text, expires_at bigint,
            PRIMARY KEY ((namespace, workflow_id, run_id))
        )
        """,
        """
        CREATE TABLE IF NOT EXISTS tasks (
            namespace text, task_id text, version bigint, record blob, expires_at bigint,
            PRIMARY KEY ((namespace, task_id))
        )
        """,
        """
        CREATE TABLE IF NOT EXISTS blobs (
            namespace text, blob_id text, data blob,
            PRIMARY KEY ((namespace, blob_id))
        )
        """,
        """
        CREATE TABLE IF NOT EXISTS routing (
            namespace text, workflow text, current text, ramping text, ramping_percent int,
            PRIMARY KEY ((namespace), workflow)
        )
        """,
        # The owner is static beside the minutes of its shard: only it moves a mark or drops a minute.
        """
        CREATE TABLE IF NOT EXISTS timer_minutes (
            namespace text, shard int, minute bigint, owner text static, until bigint static,
            noted boolean, mark_at bigint, mark_id text,
            PRIMARY KEY ((namespace, shard), minute)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS timers (
            namespace text, shard int, minute bigint, fire_at bigint, timer_id text, data blob,
            PRIMARY KEY ((namespace, shard, minute), fire_at, timer_id)
        ) WITH gc_grace_seconds = 86400
        """,
        # Counts are static beside the runs they count: one conditional batch changes both.
        """
        CREATE TABLE IF NOT EXISTS listed_runs (
            namespace text, shard int, started_at bigint, workflow_id text, run_id text,
            version bigint static, counts frozen<map<text, bigint>> static,
            run_version bigint, name text, status text, tags set<text>, attributes map<text, text>, data blob,
            PRIMARY KEY ((namespace, shard), started_at, workflow_id, run_id)
        ) WITH CLUSTERING ORDER BY (started_at DESC, workflow_id DESC, run_id DESC)
        """,
        """
        CREATE TABLE IF NOT EXISTS run_index (
            namespace text, workflow_id text, run_id text, started_at bigint, forgotten boolean,
            PRIMARY KEY ((namespace, workflow_id), run_id)
        )
        """,
        """
        CREATE TABLE IF NOT EXISTS listed_tasks (
            namespace text, workflow_id text, run_id text, task_id text, data blob,
            PRIMARY KEY ((namespace, workflow_id, run_id), task_id)
        )
        """,
        usable_from=1,
    ),
    # 2: blobs in chunks, by whose they are; the table before was never written
    _Step(
        "DROP TABLE IF EXISTS blobs",
        """
        CREATE TABLE IF NOT EXISTS run_blobs (
            namespace text, workflow_id text, run_id text, blob_id text,
            PRIMARY KEY ((namespace, workflow_id, run_id), blob_id)
        ) WITH gc_grace_seconds = 86400
        """,
        """
        CREATE TABLE IF NOT EXISTS blob_chunks (
            namespace text, workflow_id text, run_id text, blob_id text, number int, data blob, expires_at bigint,
            PRIMARY KEY ((namespace, workflow_id, run_id, blob_id), number)
        ) WITH gc_grace_seconds = 86400
        """,
        usable_from=2,  # 1 would purge runs and leave their blobs, which nothing else deletes
    ),
    # 3: runs are counted by build, too; a shard's counts by build are of the version that they name
    _Step(
        "ALTER TABLE listed_runs ADD IF NOT EXISTS build text",
        "ALTER TABLE listed_runs ADD IF NOT EXISTS builds map<text, bigint> static",
        "ALTER TABLE listed_runs ADD IF NOT EXISTS builds_version bigint static",
        usable_from=3,  # 2 would leave the build in the row of a run that moved, which would be counted there for ever
    ),
    # 4: defaults of a workflow's runs
    _Step(
        "ALTER TABLE routing ADD IF NOT EXISTS run_timeout_ms bigint",
        "ALTER TABLE routing ADD IF NOT EXISTS retention_ms bigint",
        # 3 names the columns that it reads and writes: a record that it writes keeps its defaults, and runs that it
        # begins have none of them, as ever with that release.
        usable_from=3,
    ),
)

LATEST = len(_MIGRATIONS)


class WrongSchema(StorageUnavailable):
    """This release cannot use the keyspace. Run `perdure admin migrate`, or use the newer release."""


async def migrate(settings: CassandraSettings) -> int:
    """Make the keyspace and bring its tables up to date. May be repeated, and run by many at once.

    Returns:
        The version that the keyspace has now: above `LATEST` if a newer release wrote it and this one can use it. Then
        nothing was changed.

    Raises:
        WrongSchema: a newer release wrote the keyspace, and this one cannot use it.
        StorageUnavailable: the cluster cannot be reached.
        ValueError: the name of the keyspace is none.
    """
    if _KEYSPACE.fullmatch(settings.keyspace) is None:
        raise ValueError(f"{settings.keyspace!r} is no name of a keyspace: use a-z, 0-9 and _, at most 48 of them.")
    connection = await connect(settings, None)
    try:
        await connection.run(
            f"CREATE KEYSPACE IF NOT EXISTS {settings.keyspace} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', '{settings.datacenter}': {settings.replication:d}}}"
        )
    finally:
        await connection.close()
    connection = await connect(settings, settings.keyspace)
    try:
        return await _migrate(connection, settings.keyspace)
    finally:
        await connection.close()


async def check(connection: Connection, keyspace: str) -> None:
    """Raises `WrongSchema` unless this release can use the tables, StorageUnavailable if that cannot be known now."""
    try:
        rows = await connection.rows("SELECT version FROM schema_version WHERE part = 'version'")
    except StorageUnavailable as error:
        if not isinstance(error.__cause__, InvalidRequest):
            raise
        raise WrongSchema(
            f"keyspace {keyspace} has no tables of Perdure: run `perdure admin migrate`. {error}"
        ) from error
    version = (rows[0][0] or 0) if rows else 0
    if version < LATEST:
        raise WrongSchema(
            f"keyspace {keyspace} has schema version {version}, this release needs {LATEST}: "
            "run `perdure admin migrate`."
        )
    if version > LATEST:
        await _check_newer(connection, keyspace, version)


async def _check_newer(connection: Connection, keyspace: str, version: int) -> None:
    """Asked only here: keyspaces of this version may have been made without the mark, and newer ones all have it."""
    rows = await connection.rows("SELECT usable_from FROM schema_version WHERE part = 'version'")
    usable_from: int = rows[0][0]
    if usable_from > LATEST:
        raise WrongSchema(
            f"keyspace {keyspace} has schema version {version}, usable by releases of schema version {usable_from} and "
            f"newer; this one is of {LATEST}: use the newer release."
        )


async def _migrate(connection: Connection, keyspace: str) -> int:
    await connection.run(_GUARD)
    holder = uuid4().hex
    while not await connection.decide(  # noqa: ASYNC110 who holds the lease is elsewhere
        f"UPDATE schema_version USING TTL {_LEASE_S} SET holder = ? WHERE part = 'lease' IF holder = null", holder
    ):
        await asyncio.sleep(_RETRY_S)
    try:
        await connection.run(_MARK)
        rows = await connection.rows("SELECT version FROM schema_version WHERE part = 'version'", serial=True)
        version: int = (rows[0][0] or 0) if rows else 0
        if version > LATEST:
            await _check_newer(connection, keyspace, version)
        for number in range(version + 1, LATEST + 1):
            await _step(connection, number, holder)
        return max(version, LATEST)
    finally:
        await connection.decide("UPDATE schema_version SET holder = null WHERE part = 'lease' IF holder = ?", holder)


async def _step(connection: Connection, number: int, holder: str) -> None:
    step = _MIGRATIONS[number - 1]
    for statement in step.statements:
        renewed = await connection.decide(
            f"UPDATE schema_version USING TTL {_LEASE_S} SET holder = ? WHERE part = 'lease' IF holder = ?",
            holder, holder,
        )  # fmt: skip
        if not renewed:
            raise StorageUnavailable("another migration took over; run this one again")
        await connection.run(statement)
    await connection.decide(
        "UPDATE schema_version SET version = ?, usable_from = ? WHERE part = 'version' IF version = ?",
        number, step.usable_from, number - 1 or None,
    )  # fmt: skip
