"""The stores on Apache Cassandra: durable once a quorum of the local data center has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from perdure_runtime.adapters.cassandra.blobs import CassandraBlobs
from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.migrations import WrongSchema, check, migrate
from perdure_runtime.adapters.cassandra.read_model import CassandraReadModel
from perdure_runtime.adapters.cassandra.records import CassandraRouting, CassandraTasks
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.adapters.cassandra.store import CassandraStore
from perdure_runtime.adapters.cassandra.timers import CassandraTimers
from perdure_runtime.ports import Broker, Clock, Ports

__all__ = ["CassandraSettings", "CassandraStores", "WrongSchema", "migrate", "open_cassandra", "stores_on"]


@dataclass(frozen=True, slots=True)
class CassandraStores:
    """Every port but the broker's."""

    store: CassandraStore
    tasks: CassandraTasks
    timers: CassandraTimers
    read_model: CassandraReadModel
    blobs: CassandraBlobs
    routing: CassandraRouting

    def beside(self, broker: Broker, clock: Clock) -> Ports:
        """All ports of a process."""
        return Ports(
            clock=clock,
            broker=broker,
            store=self.store,
            tasks=self.tasks,
            timers=self.timers,
            read_model=self.read_model,
            blobs=self.blobs,
            routing=self.routing,
        )


def stores_on(connection: Connection, clock: Clock, owner: str) -> CassandraStores:
    """The stores of one process, whose timers `owner` leases."""
    return CassandraStores(
        store=CassandraStore(connection, clock),
        tasks=CassandraTasks(connection, clock),
        timers=CassandraTimers(connection, clock, owner),
        read_model=CassandraReadModel(connection),
        blobs=CassandraBlobs(connection, clock),
        routing=CassandraRouting(connection),
    )


@asynccontextmanager
async def open_cassandra(settings: CassandraSettings, clock: Clock) -> AsyncIterator[CassandraStores]:
    """Connect to a keyspace that `migrate` made.

    Raises:
        WrongSchema: this release cannot use its tables.
        StorageUnavailable: no node can be reached.
    """
    connection = await connect(settings, settings.keyspace)
    try:
        await check(connection, settings.keyspace)
        stores = stores_on(connection, clock, uuid4().hex)
        yield stores
        await stores.store.close()
    finally:
        await connection.close()
