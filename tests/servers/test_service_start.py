"""A service whose servers are away, or not prepared, when it starts: it says so, waits, and comes up by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from perdure_runtime.adapters.cassandra import migrate
from perdure_runtime.adapters.cassandra.connection import connect
from perdure_runtime.adapters.cassandra.migrations import LATEST
from tests.chaos.processes import Cut
from tests.servers import clean
from tests.servers.outages import PATIENCE_S, ROLES, SERVICES, Cluster, until
from tests.servers.provision import free_port
from tests.servers.replicas import NAMESPACE, service

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]


async def test_a_service_waits_for_its_servers_and_its_tables_and_then_works(tmp_path: Path) -> None:
    log, settings = tmp_path / "log", clean.pulsar_settings()
    found = clean.real_servers()
    tables = clean.cassandra_settings(f"test_{uuid4().hex[:16]}")
    cassandra = Cut(found.cassandra_port, free_port())
    pulsar = Cut(int(found.pulsar_url.rsplit(":", 1)[1]), free_port())  # the first address; the broker tells its own
    given = {
        "PERDURE_CASSANDRA_PORT": str(cassandra.port), "PERDURE_CASSANDRA_KEYSPACE": tables.keyspace,
        "PERDURE_PULSAR_URL": f"pulsar://127.0.0.1:{pulsar.port}",
    }  # fmt: skip
    async with clean.pulsar_broker([NAMESPACE], settings):
        with service("projector", settings, log, given=given) as process:
            await _until(lambda: "connection refused" in _reason(log, "use Cassandra").lower())
            await cassandra.open()
            await _until(lambda: "perdure admin migrate" in _reason(log, "use Cassandra"))
            await migrate(tables)
            await _until(lambda: bool(_reason(log, "subscribe to workflow-events, task-events")))
            assert await _ready(log) == ["not subscribed yet"]
            await pulsar.open()
            async with asyncio.timeout(120):
                while await _ready(log):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert process.poll() is None
    await cassandra.close()
    await pulsar.close()


@pytest.fixture
def environment() -> dict[str, str]:
    """Of services on a tenant and a keyspace of their own."""
    found, pulsar = clean.real_servers(), clean.pulsar_settings()
    return {
        "PERDURE_PULSAR_URL": pulsar.url,
        "PERDURE_PULSAR_ADMIN_URL": pulsar.admin_url,
        "PERDURE_PULSAR_TENANT": pulsar.tenant,
        "PERDURE_CASSANDRA_PORT": str(found.cassandra_port),
        "PERDURE_CASSANDRA_KEYSPACE": clean.keyspace(),
        "PERDURE_CASSANDRA_REPLICATION": "1",
    }


async def test_services_whose_store_is_away_when_they_start_say_so_and_work_once_it_is_there(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    store = Cut(int(environment["PERDURE_CASSANDRA_PORT"]), free_port())
    environment["PERDURE_CASSANDRA_PORT"] = str(store.port)
    settings = replace(clean.pulsar_settings(), tenant=environment["PERDURE_PULSAR_TENANT"])
    async with clean.cassandra(), clean.pulsar_broker([NAMESPACE], settings):
        cluster = Cluster(tmp_path, environment, NAMESPACE, ROLES)
        with cluster.started():
            told = f"Cassandra at 127.0.0.1, port {store.port}, cannot be reached"
            await until(
                lambda: cluster.all_told(told, "refused", "PERDURE_CASSANDRA_PORT", roles=SERVICES), "all say why"
            )
            await _backs_off(cluster, SERVICES)
            await store.open()
            assert await cluster.works("first") < PATIENCE_S
            await cluster.ready()
            await cluster.check_health()
            cluster.check_words()
    await store.close()


async def test_services_whose_broker_is_away_when_they_start_say_so_and_work_once_it_is_there(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    broker = Cut(int(environment["PERDURE_PULSAR_URL"].rsplit(":", 1)[1]), free_port())
    environment["PERDURE_PULSAR_URL"] = f"pulsar://127.0.0.1:{broker.port}"
    settings = replace(clean.pulsar_settings(), tenant=environment["PERDURE_PULSAR_TENANT"])
    async with clean.cassandra(), clean.pulsar_broker([NAMESPACE], settings):
        cluster = Cluster(tmp_path, environment, NAMESPACE, ROLES)
        with cluster.started():
            told = f"Pulsar at 127.0.0.1:{broker.port} cannot be reached: Connection refused"
            await until(lambda: cluster.all_told(told, "PERDURE_PULSAR_URL"), "all say why")
            await _backs_off(cluster, ROLES)
            await broker.open()
            assert await cluster.works("first") < PATIENCE_S
            await cluster.ready()
            await cluster.check_health()
            cluster.check_words()
    await broker.close()


async def test_a_service_whose_schema_is_one_version_ahead_says_what_to_do_and_works_where_it_may(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    tables = clean.cassandra_settings(f"test_{uuid4().hex[:16]}")
    environment["PERDURE_CASSANDRA_KEYSPACE"] = tables.keyspace
    settings = replace(clean.pulsar_settings(), tenant=environment["PERDURE_PULSAR_TENANT"])
    await migrate(tables)
    await clean.migrate_by_the_next_release(tables, usable_from=LATEST + 1)
    connection = await connect(tables, tables.keyspace)
    try:
        async with clean.pulsar_broker([NAMESPACE], settings):
            cluster = Cluster(tmp_path, environment, NAMESPACE, ("timer", "projector"))
            with cluster.started():
                told = f"usable by releases of schema version {LATEST + 1} and newer; this one is of {LATEST}"
                await until(lambda: cluster.all_told(told, tables.keyspace, "use the newer release"), "all say why")
                await _backs_off(cluster, ("timer", "projector"))
                usable = "UPDATE schema_version SET usable_from = ? WHERE part = 'version' IF version = ?"
                assert await connection.decide(usable, LATEST, LATEST + 1)
                await cluster.ready()
                await cluster.check_health()
                cluster.check_words()
    finally:
        await connection.run(f"DROP KEYSPACE {tables.keyspace}")
        await connection.close()


async def _backs_off(cluster: Cluster, roles: tuple[str, ...]) -> None:
    """Each waits longer each time. It is well, so nobody restarts it, and not ready, so nobody counts on it."""
    for role in roles:

        def pauses(role: str = role) -> list[float]:
            return [line["again_in_s"] for line in cluster.lines(role) if line.get("action") == "waiting"]

        await until(lambda pauses=pauses: len(pauses()) >= 3, f"{role} tries again")  # type: ignore[misc]
        assert pauses()[:3] == [0.5, 1.0, 2.0]
        assert await cluster.probe(role, "/healthz") == (200, [])
        assert (await cluster.probe(role, "/readyz"))[0] == 503


def _lines(log: Path) -> list[dict[str, Any]]:
    whole = log.read_text().rpartition("\n")[0]  # the last line may be half written
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def _reason(log: Path, what: str) -> str:
    """Why it cannot do this now, as the newest line about it says; empty: there is none."""
    waits = [line for line in _lines(log) if line.get("action") == "waiting"]
    return next((line["error"] for line in reversed(waits) if f"cannot {what} yet" in line["message"]), "")


async def _ready(log: Path) -> list[str]:
    """What its probe has against it."""
    port = next(line["port"] for line in _lines(log) if line.get("action") == "probes")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
        problems: list[str] = (await answer.json())["problems"]
        return problems


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
