"""A service whose servers are away, or not prepared, when it starts: it says so, waits, and comes up by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from perdure_runtime.adapters.cassandra import migrate
from tests.chaos.processes import Cut
from tests.servers import clean
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


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


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
