"""All ports in one SQLite file, which one process owns: messages and state, for laptops and single servers.

What is confirmed survives `kill -9` of the process. It survives a loss of power only if that is asked for, which costs
a sync of the disk per group of writes.
"""

from __future__ import annotations

from pathlib import Path

from perdure_runtime.adapters.queues import QueueBroker, Queues
from perdure_runtime.adapters.sqlite.blobs import SqliteBlobs
from perdure_runtime.adapters.sqlite.database import Database
from perdure_runtime.adapters.sqlite.expiry import Expiry
from perdure_runtime.adapters.sqlite.journal import SqliteJournal
from perdure_runtime.adapters.sqlite.read_model import SqliteReadModel
from perdure_runtime.adapters.sqlite.records import SqliteRouting, SqliteTasks, SqliteTimers
from perdure_runtime.adapters.sqlite.store import SqliteStore
from perdure_runtime.ports import Clock, Ports

__all__ = ["SqlitePorts", "open_sqlite"]


class SqlitePorts:
    """An open database. Close it after its consumers."""

    def __init__(self, database: Database, journal: SqliteJournal, ports: Ports) -> None:
        self._database = database
        self._journal = journal
        self.ports = ports

    async def close(self) -> None:
        """Write what is open, and let another process have the file."""
        try:
            self._journal.close()
        finally:
            self._database.close()


async def open_sqlite(path: str | Path, clock: Clock, *, survive_power_loss: bool = False) -> SqlitePorts:
    """Open or make the file; what was unacknowledged in it will be delivered again.

    Args:
        survive_power_loss: nothing is confirmed before the disk has it (SQLite's synchronous=FULL, else NORMAL).

    Raises:
        AlreadyInUse: another process has it, or this one has it already.
        NewerDatabase: a later release of Perdure wrote it.
        UnfitDatabase: it is no such database. It is as it was.
        StorageUnavailable: it cannot be opened.
    """
    database = Database(Path(path), clock, survive_power_loss=survive_power_loss)
    try:
        expiry = Expiry(database)
        journal = SqliteJournal(database)
        queues = Queues(journal)
        journal.restore(queues)
    except BaseException:
        database.close()
        raise
    ports = Ports(
        clock=clock,
        broker=QueueBroker(queues, journal),
        store=SqliteStore(database),
        tasks=SqliteTasks(database),
        timers=SqliteTimers(database),
        read_model=SqliteReadModel(database),
        blobs=SqliteBlobs(database, expiry.of_transit),
        routing=SqliteRouting(database),
    )
    return SqlitePorts(database, journal, ports)
