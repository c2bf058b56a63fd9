"""Long histories on a real Cassandra: what they cost to write does not grow, and they are read in time."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

import pytest

from perdure_runtime.adapters.cassandra import tails
from perdure_runtime.adapters.cassandra.archives import Archives
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
"""On a quiet machine: tests share theirs, and only look whether all is there and weighs no more than it may."""
_GROWTH_MAX = 1.05
"""Between the second tenth of a history and the last."""
_MOVED_MAX = 2.2
"""Bytes written by moves to archives, per byte that commits wrote: each is moved once, and each cause gets a row."""


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
    """Bytes that go to Cassandra, by whatever statement: of commits, and of moves to archives that run beside them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.committed = 0
        self.moves: list[int] = []
        """Of each move that had something to move."""
        self._move: ContextVar[list[int] | None] = ContextVar("move", default=None)
        for name in ("write", "write_together", "decide", "decide_together"):
            self._weigh(monkeypatch, name)
        self._tell_apart(monkeypatch)

    def _weigh(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(Connection, name)

        async def weighed(connection: Connection, *values: object) -> Any:
            move = self._move.get()
            if move is None:
                self.committed += size(values)
            else:
                move.append(size(values))
            return await original(connection, *values)

        monkeypatch.setattr(Connection, name, weighed)

    def _tell_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = Archives.move

        async def told_apart(archives: Archives, key: RunKey) -> None:
            moved: list[int] = []
            self._move.set(moved)  # a move is a task of its own, and so has a context of its own
            await original(archives, key)
            self.moves.append(sum(moved))

        monkeypatch.setattr(Archives, "move", told_apart)


async def test_a_commit_costs_the_same_however_long_the_history_and_it_loads_in_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.real_servers()
    if not LONG:
        monkeypatch.setattr(tails, "_TAIL_BYTES_MAX", tails._TAIL_BYTES_MAX // 10)  # as often as the long form archives
    key, commits = RunKey("ns", "w"), EVENTS // PER_COMMIT
    async with clean.cassandra() as connection:
        store = CassandraStore(connection, SystemClock())
        scales, weights = Scales(monkeypatch), list[int]()
        for version in range(commits):
            before = scales.committed
            assert await store.commit(turn(key, version))
            weights.append(scales.committed - before)
        await store.close()
        tenth = commits // 10
        early, late = sum(weights[tenth : 2 * tenth]) / tenth, sum(weights[-tenth:]) / tenth
        cold = CassandraStore(connection, SystemClock())
        began = time.monotonic()
        head, history = await cold.load(key)
        seconds = time.monotonic() - began
        with capsys.disabled():
            print(f"\n{EVENTS} events: {early:.0f} bytes a commit early, {late:.0f} late; moved to archives: "
                  f"{scales.moves} bytes; cold load {seconds:.2f} s")  # fmt: skip
        assert (head.seq, len(history)) == (EVENTS, EVENTS)
        assert late <= early * _GROWTH_MAX
        assert sum(scales.moves) <= scales.committed * _MOVED_MAX
        assert len(scales.moves) >= 2
        assert not LONG or seconds <= COLD_LOAD_S
        assert [recorded.seq for recorded in history] == list(range(1, EVENTS + 1))
