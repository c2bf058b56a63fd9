"""Rows of the acceptance checklist on the engine: order, duplicates, stale and late messages, poison, restarts."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from perdure import Channel, Refused, Retry, WorkflowError, sleep, task, workflow
from perdure_runtime.ports import Delivery, Undeliverable
from perdure_schemas import ids, topics
from perdure_schemas.common import Payload
from perdure_schemas.events import CommandSettled, Recorded, RunEnded, SignalReceived
from perdure_schemas.messages import (
    Body,
    ChildOutcome,
    Message,
    RunTask,
    RunWorkflowTask,
    StartWorkflow,
    TaskOutcome,
    TimerFired,
    WorkerHello,
    WorkflowTaskCompleted,
)
from tests.sdk.semantics.world import Batch, Gate, World, commands, events, kinds

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}


@task
async def add(a: int, b: int) -> int:
    return a + b


@task
async def pause(name: str) -> str:
    await GATES[name].passed()
    return name


@task(retry=Retry(attempts=3, initial=0.01))
async def shaky(n: int) -> int:
    if n % 3 == 0:
        raise ConnectionError("no luck")
    return n


numbers: Channel[int] = Channel("numbers", int)


@workflow
async def adder(count: int) -> int:
    """The sum of what it is sent, by one task after the other."""
    total = 0
    for _ in range(count):
        total = await add(total, await numbers.receive())
    return total


@workflow
async def waiting() -> str:
    return await pause("x")


@workflow
async def busy_day(n: int) -> list[int]:
    """Some of everything: tasks side by side, a child, a timer, a caught failure."""
    first, second = add(n, 1), add(n, 2)
    await sleep(0.005)
    child = halves(n)
    try:
        third = await shaky(n)
    except WorkflowError:
        third = -1
    return [await first, await second, await child, third]


@workflow
async def halves(n: int) -> int:
    return (await add(n, n)) // 2


def expected(n: int) -> list[int]:
    return [n + 1, n + 2, n, -1 if n % 3 == 0 else n]


def check_history(history: Sequence[Recorded]) -> None:
    """What every history keeps: one end, and one outcome for each command that was issued."""
    settled = Counter(event.command_id for event in events(history, CommandSettled))
    assert set(settled.values()) <= {1}
    issued = [command.id for command in commands(history)]
    assert len(issued) == len(set(issued))
    assert set(settled) <= set(issued)
    assert kinds(history).count(RunEnded) == 1
    assert isinstance(history[-1].event, RunEnded)


async def test_a_run_decides_one_turn_at_a_time() -> None:
    """Row E-62: what comes meanwhile waits, and is decided together."""
    async with World(add, adder) as world:
        run = await world.client.start(adder, 100)
        await asyncio.gather(*(run.signal(numbers, n) for n in range(100)))
        assert await run.result() == sum(range(100))
        open_turns: set[str] = set()
        for _, message in world.spy.published:
            match message.body:
                case RunWorkflowTask(workflow_task_id=id):
                    open_turns.add(id)
                    assert len(open_turns) == 1
                case WorkflowTaskCompleted(workflow_task_id=id):
                    open_turns.discard(id)
                case _:
                    pass
        check_history(await run.history())


async def test_the_result_of_a_turn_that_is_not_due_is_dropped() -> None:
    """Row E-63: one that was decided already, with other commands; one on another history; one of another run."""
    gate = GATES["x"] = Gate()
    async with World(pause, waiting) as world:
        run = await world.client.start(waiting)
        await gate.reached()
        (done,) = world.spy.bodies(WorkflowTaskCompleted)
        (command,) = done.commands
        other = msgspec.structs.replace(command, id="stale", position="7")
        for number, stale in enumerate(
            [
                msgspec.structs.replace(done, commands=[other]),
                msgspec.structs.replace(done, commands=[other], base_hash="0" * 32, workflow_task_id="unheard-of"),
                msgspec.structs.replace(done, commands=[other], run_id="another"),
            ]
        ):
            await world.send(topics.WORKFLOW_ENGINE, stale, run.id, id=f"stale-{number}")
        await world.quiet()
        gate.open()
        assert await run.result() == "x"
        assert [each.id for each in commands(await run.history())] == [command.id]
        assert "stale" not in {each.task_id for each in world.spy.bodies(RunTask)}


async def test_every_message_has_an_id_of_its_own() -> None:
    """Row E-64: published again, it has the same id and says the same."""
    async with World(add, shaky, busy_day, halves) as world:
        assert await world.client.execute(busy_day, 3) == expected(3)
        await world.quiet()
        said: dict[str, Message] = {}
        for _, message in world.spy.published:
            assert message.id
            known = said.setdefault(message.id, message)
            assert type(known.body) is type(message.body)
            assert known.key == message.key


async def test_ids_of_commands_are_derived_from_where_they_stand() -> None:
    """Row E-65: so a turn that is repeated, by whichever worker, asks for nothing new."""
    gate = GATES["x"] = Gate()
    async with World(add, shaky, busy_day, halves, pause, waiting) as world:
        run = await world.client.start(busy_day, 1, id="b-1")
        assert await run.result() == expected(1)
        for command in commands(await run.history()):
            assert command.id == ids.command_id("default", "b-1", run.run_id, 0, command.position)
        held = await world.client.start(waiting)
        await gate.reached()
        for _ in range(2):  # a third death would fail the attempt
            await world.restart_worker()
            await gate.reached()
        gate.open()
        await held.result()
        assert len({each.task_id for each in world.spy.bodies(RunTask) if each.name == "pause"}) == 1


class Shuffled:
    """Holds back some of what is published, for a moment, so that later messages overtake it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._late: set[asyncio.Task[None]] = set()
        self.world: World | None = None
        self.overtaken = 0

    def __call__(self, batch: Batch) -> Batch:
        late = [self.world is not None and self._random.random() < 0.3 for _ in batch]
        now = [pair for pair, is_late in zip(batch, late, strict=True) if not is_late]
        later = [pair for pair, is_late in zip(batch, late, strict=True) if is_late]
        self._random.shuffle(now)
        if later:
            self.overtaken += len(later)
            task = asyncio.get_running_loop().create_task(self._publish(later, self._random.random() * 0.01))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        return now

    async def _publish(self, later: Batch, seconds: float) -> None:
        assert self.world is not None
        await asyncio.sleep(seconds)
        await self.world.ports.broker.publisher().publish(later)


@pytest.mark.parametrize("seed", range(4))
async def test_messages_may_overtake_each_other(seed: int) -> None:
    """Row E-67: signals their start, outcomes their turn, dispatches their attempt; nothing is lost or done wrong."""
    shuffled = Shuffled(seed)
    async with World(add, shaky, busy_day, halves, adder, tamper=shuffled) as world:
        shuffled.world = world
        first = await world.client.start(busy_day, seed, wait="sent")
        second = await world.client.start(adder, 5, wait="sent")
        for n in range(5):
            await second.signal(numbers, n)
        assert await first.result() == expected(seed)
        assert await second.result() == 10
        assert shuffled.overtaken
        check_history(await first.history())
        check_history(await second.history())


async def test_a_signal_may_come_before_the_start() -> None:
    """Row E-67."""
    async with World(add, adder) as world:
        await world.client.handle("early").signal("numbers", 4)
        run = await world.client.start(adder, 1, id="early")
        assert await run.result() == 4


def doubled(batch: Batch) -> Batch:
    return [pair for pair in batch for _ in range(2)]


async def test_every_message_twice_is_as_good_as_once() -> None:
    """Row E-68."""
    async with World(add, shaky, busy_day, halves, adder, tamper=doubled) as world:
        runs = [await world.client.start(busy_day, n) for n in range(5)]
        sums = await world.client.start(adder, 5)
        for n in range(5):
            await sums.signal(numbers, n)
        assert await asyncio.gather(*(run.result() for run in runs)) == [expected(n) for n in range(5)]
        assert await sums.result() == 10
        await world.quiet()
        for run in runs:
            check_history(await run.history())
        check_history(await sums.history())
        assert len(list(events(await sums.history(), SignalReceived))) == 5


async def test_a_message_nobody_can_handle_blocks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Row E-69: bytes that are no message, and a message out of place, under the key of a run that goes on."""
    caplog.set_level(logging.CRITICAL)
    gate = GATES["x"] = Gate()
    async with World(pause, waiting) as world:
        run = await world.client.start(waiting)
        await gate.reached()
        for topic in (topics.WORKFLOW_ENGINE, topics.TASK_ENGINE, topics.task_run("pause"), topics.TIMERS):
            await world.place.publish_bytes(world.ports, topic, run.id, b"\x00 no message")
        misplaced = WorkerHello(worker="w", build="b", workflows=[], tasks=[], slots=1)
        await world.send(topics.WORKFLOW_ENGINE, misplaced, run.id)
        gate.open()
        assert await run.result() == "x"
        dead = topics.dead_letters(topics.WORKFLOW_ENGINE)
        consumer = await world.ports.broker.subscribe("default", [dead], "test", "shared")
        found: list[Delivery | Undeliverable] = []
        while len(found) < 2:
            found += await consumer.receive()
        assert {type(each) for each in found} == {Delivery, Undeliverable}
        await consumer.close()


async def test_what_comes_after_the_end_of_a_run_changes_nothing() -> None:
    """Row E-70: outcomes, timers, turns and starts repeated; a signal is refused."""
    async with World(add, shaky, busy_day, halves) as world:
        run = await world.client.start(busy_day, 1)
        await run.result()
        await world.quiet()
        before = await run.history()
        command = commands(before)[0]
        outcome = ChildOutcome(
            workflow_id=run.id, run_id=run.run_id, command_id=command.id, generation=0, outcome="failed"
        )
        late: list[Body] = [
            outcome,
            TaskOutcome(
                workflow_id=run.id,
                run_id=run.run_id,
                command_id=command.id,
                generation=0,
                attempt=1,
                outcome="completed",
                result=Payload("json", b"99"),
            ),
            TimerFired(workflow_id=run.id, run_id=run.run_id, kind="command", command_id=command.id),
            world.spy.bodies(WorkflowTaskCompleted)[0],
            world.spy.bodies(StartWorkflow)[0],
        ]
        published = len(world.spy.bodies(RunTask))
        for number, body in enumerate(late):
            await world.send(topics.WORKFLOW_ENGINE, body, run.id, id=f"late-{number}")
        with pytest.raises(Refused, match="has ended"):
            await run.signal("numbers", 1)
        await world.quiet()
        assert await run.history() == before
        assert len(world.spy.bodies(RunTask)) == published
        assert await run.result() == expected(1)


async def test_engines_and_workers_that_come_and_go_under_load_lose_nothing() -> None:
    """Row E-73."""
    async with World(add, shaky, busy_day, halves) as world:
        runs = [await world.client.start(busy_day, n) for n in range(40)]
        for _ in range(4):
            await world.kill_engine()
            await world.start_engine()
            await asyncio.sleep(0.01)
            await world.restart_worker()
        assert await asyncio.gather(*(run.result() for run in runs)) == [expected(n) for n in range(40)]
        await world.quiet()
        for run in runs:
            check_history(await run.history())
