"""What Cassandra keeps of routing, and how long an answer about it is believed; without a server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.cassandra import records
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.ports import Routing


def test_it_is_believed_from_when_it_was_asked_for_not_from_when_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stood still meanwhile has an old answer."""
    now = 100.0

    class Slow:
        current = "one"

        async def rows(self, *_: Any) -> list[tuple[str, None, int, None, None]]:
            nonlocal now
            found = self.current
            now += 0.9 * records._ROUTING_KEPT_S
            return [(found, None, 0, None, None)]

    async def scenario() -> None:
        nonlocal now
        slow = Slow()
        routing = records.CassandraRouting(cast(Connection, slow))
        assert await routing.get("ns", "order") == Routing(current="one")
        slow.current = "two"  # elsewhere
        assert await routing.get("ns", "order") == Routing(current="one"), "it is kept"
        now += 0.2 * records._ROUTING_KEPT_S
        assert await routing.get("ns", "order") == Routing(current="two")

    monkeypatch.setattr(records, "monotonic", lambda: now)
    asyncio.run(scenario())


def test_every_column_is_where_it_belongs() -> None:
    """By name, as the statements have them."""
    known = Routing(current="1", ramping="2", ramping_percent=3, defaults=RunDefaults(run_timeout_ms=4, retention_ms=5))
    written: dict[str, Any] = {}

    class Table:
        async def write(self, statement: str, *values: Any) -> None:
            names = statement.partition("(")[2].partition(")")[0].split(", ")
            written.update(zip(names, values, strict=True))

        async def rows(self, statement: str, *_: Any) -> list[tuple[Any, ...]]:
            names = statement.removeprefix("SELECT ").partition(" FROM")[0].split(", ")
            return [tuple(written[name] for name in names)]

    async def scenario() -> None:
        routing = records.CassandraRouting(cast(Connection, Table()))
        await routing.put("ns", "order", known)
        assert await routing.get("ns", "order") == known
        assert (written["run_timeout_ms"], written["retention_ms"]) == (4, 5)

    asyncio.run(scenario())
