"""A clean part of the session's servers for one test: an empty keyspace, a tenant of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import TypeVar
from uuid import uuid4

import aiohttp
import pytest

from perdure_runtime.adapters.cassandra import CassandraSettings, migrate, migrations, stores_on
from perdure_runtime.adapters.cassandra.connection import Connection, Row, connect
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.pulsar import PulsarBroker, PulsarSettings
from perdure_runtime.adapters.pulsar.names import inbox_namespace
from perdure_runtime.ports import Clock, Ports
from tests.servers.provision import NoServers, Servers, check_tools, required, servers

_T = TypeVar("_T")
_TABLES = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{}'"
_SCHEMA = "schema_version"


def real_servers() -> Servers:
    """Those of this session; skips the test where there can be none, unless that is a failure."""
    return _or_skip(servers)


def need_tools() -> None:
    """For a test that starts servers of its own; skips it like `real_servers`."""
    _or_skip(check_tools)


def _or_skip(find: Callable[[], _T]) -> _T:
    try:
        return find()
    except NoServers as error:
        if required():
            raise
        pytest.skip(str(error))


def cassandra_settings(keyspace: str) -> CassandraSettings:
    found = real_servers()
    return CassandraSettings(hosts=(found.cassandra_host,), port=found.cassandra_port, keyspace=keyspace, replication=1)


@cache
def keyspace() -> str:
    """Of this process: tables take seconds to make."""
    return f"test_{uuid4().hex[:16]}"


_MIGRATED: set[str] = set()


@asynccontextmanager
async def cassandra() -> AsyncIterator[Connection]:
    """A connection to this process's keyspace, whose tables are empty."""
    settings = cassandra_settings(keyspace())
    if settings.keyspace not in _MIGRATED:
        await migrate(settings)
        _MIGRATED.add(settings.keyspace)
    connection = await connect(settings, settings.keyspace)
    try:
        tables = await _tables(connection)  # those without rows too: deletions from ahead of all clocks lie in them
        await asyncio.gather(*(connection.run(f"TRUNCATE {settings.keyspace}.{table}") for table in tables))
        yield connection
    finally:
        await connection.close()


async def migrate_by_the_next_release(settings: CassandraSettings, usable_from: int) -> None:
    """As one would that adds a column, and says which releases may still use the keyspace."""
    step = migrations._Step("ALTER TABLE routing ADD IF NOT EXISTS of_the_next text", usable_from=usable_from)
    with pytest.MonkeyPatch.context() as release:
        release.setattr(migrations, "_MIGRATIONS", (*migrations._MIGRATIONS, step))
        release.setattr(migrations, "LATEST", len(migrations._MIGRATIONS))
        assert await migrate(settings) == migrations.LATEST


async def used_tables(connection: Connection) -> list[str]:
    """Names of the tables that have rows. What only says that there is a tombstone counts as that tombstone."""
    names = await _tables(connection)
    found = await asyncio.gather(*(connection.rows(f"SELECT * FROM {name} LIMIT 1") for name in names))
    used = {name for name, rows in zip(names, found, strict=True) if rows}
    if "commits" in used and not await commits_left(connection):
        used.remove("commits")
    return sorted(used)


async def commits_left(connection: Connection) -> list[Row]:
    """Rows of heads and histories, but for those that only say, for as long as a tombstone lives, that there is one."""
    rows = await connection.rows(
        "SELECT run_id, version, runs, archives, purging, expires_at, ttl(buried), workflow_id FROM commits"
    )
    return [row for row in rows if row[6] is None or any(value is not None for value in row[:6])]


async def _tables(connection: Connection) -> list[str]:
    return [name for (name,) in await connection.rows(_TABLES.format(keyspace())) if name != _SCHEMA]


@asynccontextmanager
async def cassandra_ports(clock: Clock) -> AsyncIterator[Ports]:
    """Stores on Cassandra beside a broker in memory."""
    async with cassandra() as connection:
        stores = stores_on(connection, clock, "me")
        yield stores.beside(memory_ports(clock).broker, clock)
        await stores.store.close()


def pulsar_settings() -> PulsarSettings:
    """With a tenant that nobody has."""
    found = real_servers()
    return PulsarSettings(url=found.pulsar_url, admin_url=found.pulsar_admin_url, tenant=f"test-{uuid4().hex[:16]}")


@asynccontextmanager
async def pulsar_broker(
    namespaces: Sequence[str], settings: PulsarSettings | None = None
) -> AsyncIterator[PulsarBroker]:
    """A broker with a tenant of its own; topics are made as they are used."""
    settings = settings or pulsar_settings()
    async with aiohttp.ClientSession(f"{settings.admin_url}/admin/v2/") as session:
        async with session.get("clusters") as answer:
            clusters = await answer.json()
        await _put(session, f"tenants/{settings.tenant}", {"allowedClusters": clusters, "adminRoles": []})
        for namespace in namespaces:
            for name in (namespace, inbox_namespace(namespace)):
                await _put(session, f"namespaces/{settings.tenant}/{name}", {})
    broker = PulsarBroker(settings)
    try:
        yield broker
    finally:
        await broker.close()


async def _put(session: aiohttp.ClientSession, path: str, body: object) -> None:
    async with session.put(path, json=body) as answer:
        answer.raise_for_status()
