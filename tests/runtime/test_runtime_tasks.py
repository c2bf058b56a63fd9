"""The task engine's shell: what it holds, whom it answers, what it reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from perdure_core.task_engine.state import born, encode
from perdure_runtime import poison, task_driver, task_holds
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import Commit, Delivery, Head, RunKey
from perdure_runtime.task_driver import TaskEngine
from perdure_schemas import ids, topics
from perdure_schemas.common import NULL, Address, Command, Failure, Payload, TaskOptions, WaitsFor, WorkflowRef
from perdure_schemas.events import CommandSettled, Event, Recorded, Rewound, TurnCommitted
from perdure_schemas.messages import (
    AttemptOutcome,
    CancelTask,
    CommandReply,
    DispatchTask,
    RunTask,
    TaskOutcome,
    TaskResult,
    TaskTimerFired,
    WaitForTask,
)
from tests.runtime.parts import NAMESPACE, World, hooked

RUN = WorkflowRef("w", "r", "order")
VALUE = Payload("json", b"7")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held, is held for a moment; outages are over soon."""
    monkeypatch.setattr(poison, "OUTAGE_DELAY_MS", 10)
    monkeypatch.setattr(task_holds, "HOLD_MAX_S", 0.05)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[task_holds.Holds]:
    """Has the holds once for each delivery that is held, which is until it is met, however long that takes."""
    kept: asyncio.Queue[task_holds.Holds] = asyncio.Queue()
    keep = task_holds.Holds.keep

    def told_keep(self: task_holds.Holds, key: str, delivery: Delivery) -> None:
        keep(self, key, delivery)
        kept.put_nowait(self)

    monkeypatch.setattr(task_holds.Holds, "keep", told_keep)
    monkeypatch.setattr(task_holds, "HOLD_MAX_S", 3_600)
    return kept


def task(*, alone: bool = False) -> DispatchTask:
    return DispatchTask(
        task_id="t",
        name="charge",
        args=NULL,
        options=TaskOptions(),
        answer_to=[] if alone else [Address(topics.WORKFLOW_ENGINE, "w")],
        dispatched=not alone,
        workflow=None if alone else RUN,
    )


def success() -> AttemptOutcome:
    return AttemptOutcome(
        task_id="t", attempt_id=ids.attempt_id("t", 0, 1), attempt=1, outcome="completed", result=VALUE
    )


def failure() -> AttemptOutcome:
    why = Failure(name="ValueError", message="no")
    return AttemptOutcome(
        task_id="t", attempt_id=ids.attempt_id("t", 0, 1), attempt=1, outcome="failed", failure=why, task=task()
    )


async def record(world: World, *events: Event) -> None:
    """The run's history."""
    recorded = [Recorded(seq=seq, at=seq, cause=f"c{seq}", event=event) for seq, event in enumerate(events, 1)]
    head = Head(version=1, run_id="r", seq=len(recorded), runs=1)
    commit = Commit(
        key=RunKey(NAMESPACE, "w"), expected_version=0, expected_run="", head=head, events=recorded, commit_id="c"
    )
    assert await world.ports.store.commit(commit)


def issued() -> TurnCommitted:
    return TurnCommitted(
        workflow_task_id="",
        base=0,
        nonce="",
        generation=0,
        commands=[Command(id="t", position="0", kind="task", name="charge")],
        waits_for=WaitsFor(),
    )


def play(scenario: Callable[[World], Awaitable[None]], world: World | None = None) -> None:
    async def run() -> None:
        made = world or World()
        async with made.running(TaskEngine(made.ports, NAMESPACE, "e").run()):
            await scenario(made)

    asyncio.run(run())


async def saved(world: World) -> int:
    return (await world.ports.tasks.load(NAMESPACE, "t"))[0]


def test_rule_2_a_save_whose_outcome_is_unknown_is_looked_up_and_its_effects_published_once() -> None:
    """It was applied. Nothing is published before that is known."""
    world, calls = World(), list[str]()
    tasks: Any = world.ports.tasks

    async def before(name: str, args: tuple[Any, ...]) -> None:
        calls.append(name)
        if calls.count("save") == 1 and name == "save":
            assert await tasks.save(*args)
            raise UnknownOutcome("no answer")

    world.ports = hooked(world.ports, "tasks", before)

    async def scenario(world: World) -> None:
        attempts = await world.open(topics.task_run("charge"))
        await world.send(topics.TASK_ENGINE, "t", task(alone=True))
        assert (await attempts.body(RunTask)).attempt == 1
        assert calls == ["load", "save", "load"], "found recorded, its effects were published"

    play(scenario, world)


def test_rule_2_nothing_is_acknowledged_before_its_effects_are_published() -> None:
    world, refused = World(), list[str]()

    async def before(name: str, args: tuple[Any, ...]) -> None:
        topic = args[0][0][0] if name == "publish" else ""
        if not refused and topic == topics.TASK_EVENTS:
            refused.append(topic)
            raise StorageUnavailable("down")

    world.ports = hooked(world.ports, "broker", before)

    async def scenario(world: World) -> None:
        attempts = await world.open(topics.task_run("charge"))
        await world.send(topics.TASK_ENGINE, "t", task(alone=True))
        assert (await attempts.body(RunTask)).attempt == 1
        assert refused
        assert await saved(world) == 1

    play(scenario, world)


def test_rule_23_a_dispatch_and_its_success_meet_and_nothing_is_stored() -> None:
    async def scenario(world: World) -> None:
        await record(world, issued())
        await world.send_all(topics.TASK_ENGINE, "t", task(), success())
        await asyncio.sleep(0.1)
        assert await saved(world) == 0

    play(scenario)


def test_rule_31_a_success_from_before_a_rewind_does_not_meet_what_was_dispatched_after_it() -> None:
    """The attempt that is under way would have nobody to look after it."""

    async def scenario(world: World) -> None:
        rewound = Rewound(to_seq=1, generation=1, reason="", actor="")
        await record(world, issued(), rewound, msgspec.structs.replace(issued(), generation=1))
        await world.send(topics.TASK_ENGINE, "t", msgspec.structs.replace(task(), generation=1))
        await world.send(topics.TASK_ENGINE, "t", success())
        while not await saved(world):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    play(scenario)


def test_rule_23_what_is_held_beside_the_dispatch_is_answered_when_it_is_met(
    kept: asyncio.Queue[task_holds.Holds],
) -> None:
    async def scenario(world: World) -> None:
        answers = await world.open("inbox.me")
        await world.send(topics.TASK_ENGINE, "t", task())
        asked = await world.send(topics.TASK_ENGINE, "t", CancelTask(task_id="t", reply_topic="inbox.me"))
        for _ in range(2):
            await kept.get()
        await world.send(topics.TASK_ENGINE, "t", success())
        answer = await answers.next()
        assert (answer.message.causation_id, answer.message.body.status) == (asked, "not-found")  # type: ignore[union-attr]

    play(scenario)


def test_a_command_that_was_held_before_its_dispatch_finds_the_record(kept: asyncio.Queue[task_holds.Holds]) -> None:
    async def scenario(world: World) -> None:
        answers = await world.open("inbox.me")
        await record(world, issued())
        await world.send(topics.TASK_ENGINE, "t", CancelTask(task_id="t", reply_topic="inbox.me"))
        await kept.get()
        await world.send(topics.TASK_ENGINE, "t", task())
        (await kept.get())._over("t")
        assert (await answers.body(CommandReply)).status == "ok"

    play(scenario)


def test_rule_22_a_held_dispatch_is_stored_if_the_history_says_so() -> None:
    async def scenario(world: World) -> None:
        await record(world, issued())
        await world.send(topics.TASK_ENGINE, "t", task())
        while not await saved(world):  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    play(scenario)


def test_rule_22_a_dispatch_that_comes_again_after_its_outcome_is_forgotten() -> None:
    async def scenario(world: World) -> None:
        await record(world, issued(), CommandSettled(command_id="t", outcome="completed", result=VALUE))
        await world.send(topics.TASK_ENGINE, "t", task())
        await world.send(topics.TASK_ENGINE, "t", failure())
        await asyncio.sleep(0.15)
        assert await saved(world) == 0

    play(scenario)


def test_who_waits_for_a_settled_task_is_told_what_the_history_has() -> None:
    async def scenario(world: World) -> None:
        answers = await world.open("inbox.me")
        await record(world, issued(), CommandSettled(command_id="t", outcome="completed", result=VALUE))
        data = encode(born(task(), at=1, cause="d"))
        assert await world.ports.tasks.save(NAMESPACE, "t", 0, data)
        await world.send(topics.TASK_ENGINE, "t", WaitForTask(task_id="t", reply_topic="inbox.me"))
        watch = TaskTimerFired(task_id="t", generation=0, attempt=1, due_at=10**15, task=task())
        await world.send(topics.TASK_ENGINE, "t", watch)
        assert (await answers.body(TaskResult)).result == VALUE

    play(scenario)


def test_the_history_is_never_read_as_a_whole() -> None:
    """A failure without a record, and the watch of one, cost what happened to the task."""
    world, whole = World(), list[str]()

    async def before(name: str, args: tuple[Any, ...]) -> None:
        if name == "load" or (name == "history" and args[-1] > 1):
            whole.append(name)

    world.ports = hooked(world.ports, "store", before)

    async def scenario(world: World) -> None:
        answers = await world.open(topics.WORKFLOW_ENGINE)
        await record(world, issued())
        await world.send(topics.TASK_ENGINE, "t", failure())
        assert (await answers.body(TaskOutcome)).outcome == "failed"
        assert not whole

    play(scenario, world)


def test_a_command_that_overtakes_a_stand_alone_dispatch_finds_it(kept: asyncio.Queue[task_holds.Holds]) -> None:
    async def scenario(world: World) -> None:
        answers = await world.open("inbox.me")
        await world.send(topics.TASK_ENGINE, "t", CancelTask(task_id="t", reply_topic="inbox.me"))
        await kept.get()
        await world.send(topics.TASK_ENGINE, "t", task(alone=True))
        assert (await answers.body(CommandReply)).status == "ok"

    play(scenario)


def test_a_wide_fan_out_asks_the_store_for_a_few_at_a_time_and_its_run_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its tasks outlast their hold together."""
    monkeypatch.setattr(task_driver, "AT_ONCE", 8)
    world, width, under_way, most = World(), 50, Counter[str](), Counter[str]()
    ids_of = [f"t{number}" for number in range(width)]
    tasks = world.ports.tasks

    async def before(name: str, _: tuple[Any, ...]) -> None:
        under_way[name] += 1
        most[name] = max(most[name], under_way[name])
        await asyncio.sleep(0.001)
        under_way[name] -= 1

    world.ports = hooked(hooked(world.ports, "tasks", before), "store", before)

    async def scenario(world: World) -> None:
        commands = [Command(id=id, position=id, kind="task", name="charge") for id in ids_of]
        await record(world, msgspec.structs.replace(issued(), commands=commands))
        for id in ids_of:
            await world.send(topics.TASK_ENGINE, id, msgspec.structs.replace(task(), task_id=id))
        async with asyncio.timeout(30):
            while not all([(await tasks.load(NAMESPACE, id))[0] for id in ids_of]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (most["load"], most["task_marks"]) == (8, 1)
        assert most["save"] <= 8

    play(scenario, world)
