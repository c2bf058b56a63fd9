"""Long histories on a real Cassandra: what they cost to write does not grow, and they are read in time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.adapters.cassandra.store import CassandraStore
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Commit, Head, RunKey
from perdure_schemas.events import CancelRequested, Recorded
from tests.servers import clean
from tests.servers.replicas import LONG

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(1_800), pytest.mark.usefixtures("alone")]

EVENTS = 100_000 if LONG else 10_000
PER_COMMIT = 50
COLD_LOAD_S = 3.0
_GROWTH_MAX = 1.2
"""Between the second tenth of a history and the last: archives go by number of rows, and so do not meet each tenth
equally often."""


def turn(key: RunKey, version: int) -> Commit:
    seq = version * PER_COMMIT
    events = [
        Recorded(seq=seq + n, at=seq + n, cause=f"m{seq + n}", event=CancelRequested(reason="x" * 100, actor=""))
        for n in range(1, PER_COMMIT + 1)
    ]
    return Commit(
        key=key, expected_version=version, expected_run="r" if version else "", events=events, commit_id=f"c{version}",
        head=Head(version=version + 1, run_id="r", seq=seq + PER_COMMIT, runs=1),
    )  # fmt: skip


def size(value: object) -> int:
    """Of what is sent, roughly: what is not text or bytes has a constant size."""
    if isinstance(value, (str, bytes)):
        return len(value)
    return sum(map(size, value)) if isinstance(value, (list, tuple, set, frozenset)) else 8


class Scales:
    """Bytes that go to Cassandra, by whatever statement."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        for name in ("write", "write_together", "decide", "decide_together"):
            self._weigh(monkeypatch, name)

    def _weigh(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(Connection, name)

        async def weighed(connection: Connection, *values: object) -> Any:
            self.bytes += size(values)
            return await original(connection, *values)

        monkeypatch.setattr(Connection, name, weighed)


async def test_a_commit_costs_the_same_however_long_the_history_and_it_loads_in_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.real_servers()
    key, commits = RunKey("ns", "w"), EVENTS // PER_COMMIT
    async with clean.cassandra() as connection:
        store = CassandraStore(connection, SystemClock())
        scales, weights = Scales(monkeypatch), list[int]()
        for version in range(commits):
            before = scales.bytes
            assert await store.commit(turn(key, version))
            weights.append(scales.bytes - before)
        await store.close()
        tenth = commits // 10
        early, late = sum(weights[tenth : 2 * tenth]) / tenth, sum(weights[-tenth:]) / tenth
        cold = CassandraStore(connection, SystemClock())
        began = time.monotonic()
        head, history = await cold.load(key)
        seconds = time.monotonic() - began
        with capsys.disabled():
            print(f"\n{EVENTS} events: {early:.0f} bytes a commit early, {late:.0f} late; cold load {seconds:.2f} s")
        assert (head.seq, len(history)) == (EVENTS, EVENTS)
        assert late <= early * _GROWTH_MAX
        assert seconds <= COLD_LOAD_S
        assert [recorded.seq for recorded in history] == list(range(1, EVENTS + 1))
