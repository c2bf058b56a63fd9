"""How long an answer about routing is believed; without a server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from perdure_runtime.adapters.cassandra import records
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.ports import Routing


def test_it_is_believed_from_when_it_was_asked_for_not_from_when_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stood still meanwhile has an old answer."""
    now = 100.0

    class Slow:
        current = "one"

        async def rows(self, *_: Any) -> list[tuple[str, None, int]]:
            nonlocal now
            found = self.current
            now += 0.9 * records._ROUTING_KEPT_S
            return [(found, None, 0)]

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
