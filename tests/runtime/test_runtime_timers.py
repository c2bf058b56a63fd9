"""The timer service: never early, never dropped, at least once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure_runtime.adapters.memory.records import MemoryTimers
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.timer_driver import SHARD, TimerService
from perdure_schemas import topics
from perdure_schemas.common import Address
from perdure_schemas.messages import CancelTimer, Message, ScheduleTimer, TimerFired
from tests.runtime.parts import NAMESPACE, World, hooked


def timer(id: str, due_at: int) -> ScheduleTimer:
    fires = TimerFired(workflow_id=id, run_id="r", kind="command", due_at=due_at)
    return ScheduleTimer(timer_id=id, due_at=due_at, target=Address("target", id), fires=fires, message_id=f"{id}!")


def test_a_timer_fires_when_it_is_due_and_the_next_ones_after_it() -> None:
    async def scenario() -> None:
        world = World()
        fired = await world.open("target")
        now = world.ports.clock.now()
        async with world.running(TimerService(world.ports, NAMESPACE).run()):
            for id, delay in (("c", 90), ("a", 30), ("b", 60)):
                await world.send(topics.TIMERS, id, timer(id, now + delay))
            for id, delay in (("a", 30), ("b", 60), ("c", 90)):
                assert (await fired.body(TimerFired)).workflow_id == id
                assert world.ports.clock.now() >= now + delay

    asyncio.run(scenario())


def test_what_comes_while_the_service_pauses_is_stored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure_runtime.gathering.MUCH_FROM", 1)

    async def scenario() -> None:
        world, batches = World(), list[list[str]]()
        first, rest = asyncio.Event(), asyncio.Event()

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "put":
                batches.append([timer.timer_id for timer in args[2]])
                (rest if first.is_set() else first).set()

        service = TimerService(hooked(world.ports, "timers", before), NAMESPACE, pause_seconds=0.3)
        due_at = world.ports.clock.now() + 3_600_000
        async with world.running(service.run()):
            await world.send(topics.TIMERS, "a", timer("a", due_at))
            await first.wait()
            await world.send_all(topics.TIMERS, "b", *(timer(id, due_at) for id in "bcd"))
            await rest.wait()
        assert batches == [["a"], ["b", "c", "d"]]

    asyncio.run(scenario())


def test_what_was_due_while_nobody_was_there_fires_late() -> None:
    async def scenario() -> None:
        world = World()
        fired = await world.open("target")
        await world.ports.timers.put(NAMESPACE, SHARD, [timer("t", 1)])
        async with world.running(TimerService(world.ports, NAMESPACE).run()):
            delivery = await fired.next()
            assert delivery.message.id == "t!"  # type: ignore[union-attr]
            assert delivery.message.at >= 1  # type: ignore[union-attr]

    asyncio.run(scenario())


def test_a_timer_that_died_between_its_firing_and_its_removal_fires_again_with_the_same_id() -> None:
    async def scenario() -> None:
        world = World()
        fired = await world.open("target")
        await world.ports.timers.put(NAMESPACE, SHARD, [timer("t", 1)])

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "remove":
                raise StorageUnavailable("the process dies here")

        async with world.running(TimerService(hooked(world.ports, "timers", before), NAMESPACE).run()):
            first = await fired.next()
        async with world.running(TimerService(world.ports, NAMESPACE).run()):
            again = await fired.next()
        assert first.message.id == again.message.id == "t!"  # type: ignore[union-attr]

    asyncio.run(scenario())


def test_what_is_not_due_stays_when_others_fire() -> None:
    async def scenario() -> None:
        world = World()
        now = world.ports.clock.now()
        await world.ports.timers.put(NAMESPACE, SHARD, [timer("t", now + 60_000)])
        fired = await world.open("target")
        async with world.running(TimerService(world.ports, NAMESPACE).run()):
            await world.send(topics.TIMERS, "u", timer("u", now))
            assert (await fired.body(TimerFired)).workflow_id == "u"
            await asyncio.sleep(0)  # it is removed right after it was published
        assert await world.ports.timers.next_due(NAMESPACE, SHARD) == now + 60_000

    asyncio.run(scenario())


class Counted(int):
    """A time that counts how often times are compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) > int(other)

    def __le__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) <= int(other)

    __hash__ = int.__hash__


def put_and_look(timers: MemoryTimers, numbers: Sequence[int]) -> int:
    """How many comparisons it took. The later a timer is put, the earlier it is due: a heap's worst order."""

    async def scenario() -> None:
        for number in numbers:
            due_at = 10**15 - number
            await timers.put("n", 0, [timer(str(number), Counted(due_at))])
            assert not await timers.due("n", 0, 1_000, 500)
            assert await timers.next_due("n", 0) == due_at

    before = Counted.comparisons
    asyncio.run(scenario())
    return Counted.comparisons - before


def test_a_timer_costs_hardly_more_among_ten_thousand_others() -> None:
    timers = MemoryTimers()
    first = put_and_look(timers, range(2_000))
    put_and_look(timers, range(2_000, 10_000))
    last = put_and_look(timers, range(10_000, 12_000))
    assert first > 2_000
    assert last < 1.5 * first, "it grows with the logarithm of how many there are"


def test_a_timer_that_was_stored_with_a_cancel_that_fails_fires_in_time() -> None:
    async def scenario() -> None:
        world = World()
        fired = await world.open("target")

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "cancel":
                raise StorageUnavailable("an outage")

        now = world.ports.clock.now()
        bodies: dict[str, ScheduleTimer | CancelTimer] = {
            "t": timer("t", now + 50),
            "other": CancelTimer(timer_id="other"),
        }
        batch = [
            (topics.TIMERS, Message(id=key, namespace=NAMESPACE, key=key, at=now, body=body))
            for key, body in bodies.items()
        ]
        async with world.running(TimerService(hooked(world.ports, "timers", before), NAMESPACE).run()):
            await world.ports.broker.publisher().publish(batch)
            assert (await fired.body(TimerFired)).workflow_id == "t"

    asyncio.run(scenario())
