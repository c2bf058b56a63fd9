"""One of several operators leads."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from perdure_operator.lease import DURATION_S, GIVEN_UP_AFTER_S, NAME, Lease, Lost
from perdure_operator.objects import Kind, Object
from perdure_operator.ports import Changed, Unavailable
from tests.simulation.virtual import VirtualLoop

_FOR_EVER_S = 1_000.0
_LATER_S = 0.1


class Leases:
    def __init__(self) -> None:
        self.item: Object | None = None
        self.version = 0
        self.up = True

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        assert (kind, namespace, name) == ("Lease", "ops", NAME)
        self._answer()
        return copy.deepcopy(self.item)

    async def create(self, item: Object) -> None:
        self._answer()
        if self.item is not None:
            raise Changed("it is there")
        self._store(item)

    async def replace(self, item: Object) -> None:
        self._answer()
        if self.item is None or item["metadata"].get("resourceVersion") != self.item["metadata"]["resourceVersion"]:
            raise Changed("it was changed")
        self._store(item)

    def _store(self, item: Object) -> None:
        self.version += 1
        self.item = {**copy.deepcopy(item), "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}

    def _answer(self) -> None:
        if not self.up:
            raise Unavailable("away")


class Time:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("perdure_operator.lease.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def holder(leases: Leases) -> str:
    assert leases.item is not None
    found: str = leases.item["spec"]["holderIdentity"]
    return found


@pytest.mark.asyncio
async def test_the_first_leads_and_the_next_waits_until_it_is_silent(time: Time) -> None:
    leases = Leases()
    first, second = (Lease(leases, "ops", name, lambda: time.now) for name in ("a", "b"))
    await first.acquire()
    assert holder(leases) == "a"
    await second.acquire()
    assert holder(leases) == "b"
    assert time.now >= DURATION_S
    assert leases.item is not None
    assert leases.item["spec"]["leaseTransitions"] == 1
    with pytest.raises(Lost, match="could not be renewed"):
        await first.keep()


@pytest.mark.asyncio
async def test_who_finds_another_holding_it_stops(time: Time) -> None:
    leases = Leases()
    first = Lease(leases, "ops", "a", lambda: time.now)
    await first.acquire()
    assert leases.item is not None
    leases.item["spec"]["holderIdentity"] = "b"
    with pytest.raises(Lost, match="another"):
        await first.keep()


@pytest.mark.asyncio
async def test_a_renewed_lease_is_not_taken(time: Time) -> None:
    leases = Leases()
    first, second = (Lease(leases, "ops", name, lambda: time.now) for name in ("a", "b"))
    await first.acquire()
    for _ in range(20):
        time.now += DURATION_S / 3
        assert await first._try()
        assert await second._try() is False


@pytest.mark.asyncio
async def test_who_cannot_renew_gives_up_before_another_may_take_it(time: Time) -> None:
    leases = Leases()
    first = Lease(leases, "ops", "a", lambda: time.now)
    await first.acquire()
    leases.up = False
    with pytest.raises(Lost, match="could not be renewed"):
        await first.keep()
    assert time.now < DURATION_S


@pytest.mark.asyncio
async def test_a_released_lease_is_free_at_once(time: Time) -> None:
    leases = Leases()
    await Lease(leases, "ops", "a", lambda: time.now).acquire()
    await Lease(leases, "ops", "b", lambda: time.now).release()
    assert holder(leases) == "a", "it was not b's to release"
    await Lease(leases, "ops", "a", lambda: time.now).release()
    await Lease(leases, "ops", "b", lambda: time.now).acquire()
    assert (holder(leases), time.now) == ("b", 0)


class Slow(Leases):
    """As another candidate sees them, from behind a network that is not well."""

    def __init__(self, behind: Leases, ill: Callable[[], tuple[float, float, bool]]) -> None:
        """`ill`: of each request how long it travels, and its answer, and whether it is refused."""
        super().__init__()
        self._behind = behind
        self._ill = ill
        self.written = 0.0
        """When the last was."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        there, back = self._way()
        await asyncio.sleep(there)
        found = await self._behind.get(kind, namespace, name)
        await asyncio.sleep(back)
        return found

    async def create(self, item: Object) -> None:
        await self._write(self._behind.create, item)

    async def replace(self, item: Object) -> None:
        await self._write(self._behind.replace, item)

    async def _write(self, write: Callable[[Object], Awaitable[None]], item: Object) -> None:
        there, back = self._way()
        await asyncio.sleep(there)
        await write(item)
        self.written = asyncio.get_running_loop().time()
        await asyncio.sleep(back)

    def _way(self) -> tuple[float, float]:
        there, back, refused = self._ill()
        if refused:
            raise Unavailable("connection refused")
        return there, back


@dataclass(slots=True)
class Race:
    ended: float = 0.0
    """When the first led no longer."""
    written: float = 0.0
    """When it was last seen to lead."""
    began: float = 0.0
    """When the next did."""


def race(requests: list[tuple[float, float, bool]]) -> Race:
    """The requests of the first go so, and all that follow are never answered."""
    told, left = Race(), list(requests)
    with closing(VirtualLoop()) as loop:
        leases = Leases()
        slow = Slow(leases, lambda: left.pop(0) if left else (_FOR_EVER_S, 0.0, False))

        async def lead() -> None:
            first = Lease(leases, "ops", "a", loop.time)
            await first.acquire()
            first._leases = slow
            with pytest.raises(Lost):
                await first.keep()
            told.ended, told.written = loop.time(), slow.written

        async def follow() -> None:
            await asyncio.sleep(_LATER_S)
            await Lease(leases, "ops", "b", loop.time).acquire()
            told.began = loop.time()

        async def both() -> None:
            await asyncio.gather(lead(), follow())

        loop.run_until_complete(both())
    return told


_SECONDS = st.sampled_from([0.0, 0.5, 3.0, 6.5, 9.9, 20.0])


@given(st.lists(st.tuples(_SECONDS, _SECONDS, st.booleans()), max_size=12))
@example([])
@example([(0.0, 0.0, False), (0.0, 6.5, False), *([(0.0, 0.0, True)] * 4)])
@example([(0.0, 3.0, False)] * 20)
def test_two_never_lead_however_slow_the_answers_are(requests: list[tuple[float, float, bool]]) -> None:
    told = race(requests)
    assert told.ended < told.began
    assert told.ended < told.written + GIVEN_UP_AFTER_S + 0.001, "and not only since the next one looks seldom"


def test_who_gets_its_answers_late_but_in_time_goes_on_leading() -> None:
    assert race([(0.0, 2.0, False)] * 40).ended > 80


def test_a_lease_that_is_given_too_late_is_asked_for_again() -> None:
    with closing(VirtualLoop()) as loop:
        leases, left = Leases(), [(0.0, 0.0, False), (0.0, 20.0, False)]
        lease = Lease(Slow(leases, lambda: left.pop(0) if left else (0.0, 0.0, False)), "ops", "a", loop.time)
        loop.run_until_complete(lease.acquire())
        assert 10 < loop.time() < 20
