"""Rows of the acceptance checklist on workflow code: replay, branches, groups, inline values, state, timers."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ChildFailed,
    Client,
    TaskFailed,
    WorkflowError,
    all_of,
    any_of,
    branch,
    inline,
    now,
    query,
    task,
    timer,
    update,
    workflow,
    workflow_of,
)
from perdure.errors import RunCanceled
from perdure_schemas.common import Payload
from perdure_schemas.events import RunEnded
from perdure_schemas.messages import TaskOutcome
from tests.sdk.semantics.world import Gate, World, commands, until
from tests.sdk.stalls import stalls

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
"""Of the test that runs: tasks find theirs by name."""
RUNS: list[str] = []
"""Executions of tasks."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    GATES.clear()
    RUNS.clear()
    yield
    GATES.clear()


@task
async def step(name: str) -> str:
    RUNS.append(name)
    if name in GATES:
        await GATES[name].passed()
    return name.upper()


@task
async def fail(message: str) -> None:
    raise ValueError(message)


@workflow
async def five_steps() -> str:
    first = await step("a")
    beside = branch(pair())
    second = await step("d")
    return first + second + await beside


async def pair() -> str:
    return await step("b") + await step("c")


@pytest.mark.parametrize(("victim", "others"), [("a", ""), ("b", "ad"), ("c", "abd"), ("d", "abc")])
async def test_a_worker_killed_at_any_step_changes_nothing(victim: str, others: str) -> None:
    """Row E-1. `others` can be done by then; if the kill hit them, too, they would run again."""
    gate = GATES[victim] = Gate()
    async with World(step, five_steps) as world:
        run = await world.client.start(five_steps)
        await gate.reached()
        await until(lambda: len(world.spy.bodies(TaskOutcome)) == len(others))
        await world.quiet()
        await world.kill_worker()
        gate.open()
        await world.start_worker()
        assert await run.result() == "ADBC"
        assert sorted(RUNS) == sorted(["a", "b", "c", "d", victim])


async def test_each_step_may_find_another_worker() -> None:
    """Row E-1: the run is replayed from its history before each of its turns."""
    for name in "abcd":
        GATES[name] = Gate()
    async with World(step, five_steps) as world:
        run = await world.client.start(five_steps)
        for names in ("a", "bd", "c"):
            for name in names:
                await GATES[name].reached()
            await world.restart_worker()
            for name in names:
                GATES[name].open()
        assert await run.result() == "ADBC"
        assert [command.position for command in commands(await run.history())] == ["0", "2", "1.0", "1.1"]


@workflow
async def one_two_three() -> str:
    text = ""
    for digit in "123":
        text += await step(digit)
    return text


async def test_calls_in_sequence_see_each_others_results() -> None:
    """Row E-2."""
    async with Client.embedded(step, one_two_three) as client:
        assert await client.execute(one_two_three) == "123"
        assert RUNS == ["1", "2", "3"]


@workflow
async def ahead() -> list[str]:
    deferred = step("ahead")
    early = deferred.status
    other = await step("other")
    return [early, other, await deferred, deferred.status]


async def test_a_dispatched_task_runs_while_the_workflow_goes_on() -> None:
    """Row E-3."""
    gate = GATES["ahead"] = Gate()
    async with World(step, ahead) as world:
        run = await world.client.start(ahead)
        await gate.reached()
        await until(lambda: "other" in RUNS)
        gate.open()
        assert await run.result() == ["pending", "OTHER", "AHEAD", "completed"]


@workflow
async def sizes(count: int) -> list[str]:
    """Each size in a branch of its own, awaited before any of them has done a thing."""

    async def one(size: int) -> str:
        cropped = await step(f"crop {size}")
        return await step(f"resize {cropped}")

    return await all_of([branch(one(size)) for size in range(count)])


async def test_branches_awaited_at_once_end() -> None:
    """Row E-4: in the engine this checklist began with, nothing woke such a run."""
    async with asyncio.timeout(60), Client.embedded(step, sizes) as client:
        assert await client.execute(sizes, 3) == [f"RESIZE CROP {n}" for n in range(3)]


async def test_branches_awaited_early_survive_a_replay() -> None:
    """Row E-4."""
    gate = GATES["resize CROP 1"] = Gate()
    async with World(step, sizes) as world:
        run = await world.client.start(sizes, 3)
        await gate.reached()
        await world.restart_worker()
        gate.open()
        assert await run.result() == [f"RESIZE CROP {n}" for n in range(3)]


@workflow
async def everything(count: int) -> list[str]:
    return await all_of([step(str(n)) for n in range(count)])


@pytest.mark.parametrize("count", [100, 1000])
async def test_all_of_many_gives_their_results_in_order(count: int) -> None:
    """Row E-5."""
    async with World(step, everything) as world:
        run = await world.client.start(everything, count)
        assert await run.result() == [str(n) for n in range(count)]
        turns = {record.seq for record in await run.history() if type(record.event).__name__ == "TurnCommitted"}
        assert len(turns) == 2, "waiting for all of them is one turn"


@workflow
async def nested() -> Any:
    slow, slower = step("slow"), step("slower")
    return await any_of([slow, (step("x") & (slower | step("y")))])


async def test_groups_nest() -> None:
    """Row E-6."""
    for name in ("slow", "slower"):
        GATES[name] = Gate()
    async with Client.embedded(step, nested) as client:
        assert await client.execute(nested) == ["X", "Y"]


@workflow
async def any_of_many(count: int) -> str:
    return await any_of([step(str(n)) for n in range(count)])


async def test_any_of_many_ends_with_the_first() -> None:
    """Row E-6."""
    for n in range(100):
        if n != 71:
            GATES[str(n)] = Gate()
    async with Client.embedded(step, any_of_many) as client:
        assert await client.execute(any_of_many, 100) == "71"


LATE = Payload("json", b'"LATE"')


@workflow
class Watcher:
    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    async def run(self) -> list[list[str]]:
        good, bad, dropped, late = step("good"), fail("bad"), step("dropped"), step("late")
        every = (good, bad, dropped, late)
        self.seen.append([each.status for each in every])
        await good
        dropped.cancel()
        try:
            await bad
        except TaskFailed:
            pass
        self.seen.append([each.status for each in every])
        await step("between")
        self.seen.append([each.status for each in every])
        await late
        self.seen.append([each.status for each in every])
        return self.seen


async def test_a_status_is_that_of_the_moment_replayed() -> None:
    """Row E-7: also when the history already knows how it ended."""
    for name in ("dropped", "late", "between"):
        GATES[name] = Gate()
    async with World(step, fail, Watcher) as world:
        run = await world.client.start(Watcher)
        await GATES["between"].reached()
        GATES["late"].open()
        await until(lambda: any(outcome.result == LATE for outcome in world.spy.bodies(TaskOutcome)))
        await world.restart_worker()
        GATES["between"].open()
        seen = await run.result()
        assert seen[0] == ["pending"] * 4
        assert seen[1] == ["completed", "failed", "canceled", "pending"]
        assert seen[3] == ["completed", "failed", "canceled", "completed"]


CALLS = iter(range(1_000_000))


@workflow
async def draws() -> list[int]:
    first = inline(lambda: next(CALLS))
    await step("between")
    second = inline(lambda: next(CALLS))
    return [first, second]


async def test_an_inline_value_is_recorded_once() -> None:
    """Row E-8."""
    gate = GATES["between"] = Gate()
    async with World(step, draws) as world:
        run = await world.client.start(draws)
        await gate.reached()
        drawn = commands(await run.history())[0].args
        await world.restart_worker()
        gate.open()
        first, second = await run.result()
        assert drawn == Payload("json", str(first).encode())
        assert second == first + 1, "the replay did not draw again"


@workflow
async def family(depth: int) -> list[Any]:
    if not depth:
        return [await step("leaf")]
    at_once = await family(depth - 1)
    beside = family(depth - 1)
    own = await step(f"own {depth}")
    return [at_once, own, await beside]


async def test_children_run_at_once_or_beside_and_have_children() -> None:
    """Row E-9."""
    async with Client.embedded(step, family) as client:
        low = [["LEAF"], "OWN 1", ["LEAF"]]
        assert await client.execute(family, 2) == [low, "OWN 2", low]


@workflow
async def guardian() -> str:
    return await held.options(id="ward")()


@workflow
async def held() -> str:
    return await step("held")


async def test_a_cancel_reaches_children_and_their_tasks() -> None:
    """Row E-10."""
    gate = GATES["held"] = Gate()
    async with World(step, held, guardian) as world:
        run = await world.client.start(guardian)
        await gate.reached()
        await run.cancel("no longer needed")
        with pytest.raises(RunCanceled):
            await run.result()
        with pytest.raises(RunCanceled):
            await world.client.handle(held, "ward").result()


@workflow
async def rescuer() -> str:
    try:
        await doomed()
    except ChildFailed as error:
        cause = error.__cause__
        return f"{error.name}: {cause}; because of {cause and cause.__cause__}"
    return "no failure"


@workflow
async def doomed() -> None:
    try:
        await fail("the root")
    except TaskFailed as error:
        raise WorkflowError("the child gave up") from error


async def test_the_failure_of_a_child_can_be_caught() -> None:
    """Row E-11."""
    async with Client.embedded(fail, doomed, rescuer) as client:
        assert await client.execute(rescuer) == (
            "doomed: WorkflowError: the child gave up; because of TaskFailed: task fail failed: ValueError: the root"
        )


@dataclass
class Line:
    sku: str
    count: int


@workflow
class Basket:
    """Its fields are plain Python: some of them no database could hold."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.lock = threading.Lock()
        self.price = lambda line: line.count * 5
        self.numbers = iter(range(100))

    async def run(self) -> int:
        for name in ("a", "b"):
            await step(name)
            with self.lock:
                self.lines.append(Line(name, 1 + next(self.numbers)))
        await step("c")
        return sum(map(self.price, self.lines))

    @query
    def names(self) -> list[str]:
        return [line.sku for line in self.lines]

    @update
    async def discount(self, percent: int) -> None:
        self.price = lambda line: line.count * 5 * (100 - percent) // 100


async def test_fields_are_what_the_code_made_them_after_every_replay() -> None:
    """Row E-12: replay restores them; nothing of them is stored."""
    gates = {name: Gate() for name in "abc"}
    GATES.update(gates)
    async with World(step, Basket) as world:
        run = await world.client.start(Basket)
        for count, name in enumerate("abc"):
            await gates[name].reached()
            await world.restart_worker()
            assert await run.query(Basket.names) == ["a", "b"][:count]
            gates[name].open()
        assert await run.result() == 15


async def test_fields_that_cannot_be_stored_need_no_care() -> None:
    """Row E-13: a lock, a lambda and an iterator among the fields, and a replay in between."""
    gate = GATES["c"] = Gate()
    async with World(step, Basket) as world:
        run = await world.client.start(Basket)
        await gate.reached()
        await run.update(Basket.discount, 40)
        await world.restart_worker()
        gate.open()
        assert await run.result() == 9


async def test_a_run_has_several_methods() -> None:
    """Row E-14: one answers from its state, one changes it while the main one waits."""
    gate = GATES["c"] = Gate()
    async with World(step, Basket) as world:
        run = await world.client.start(Basket)
        await gate.reached()
        assert await run.query(Basket.names) == ["a", "b"]
        await run.update(Basket.discount, 100)
        gate.open()
        assert await run.result() == 0


@workflow
async def naps(milliseconds: int) -> list[float]:
    began = now()
    await timer(milliseconds / 1000)
    middle = now()
    await timer(middle + dt.timedelta(milliseconds=milliseconds))
    await asyncio.sleep(milliseconds / 1000)
    return [(middle - began).total_seconds(), (now() - middle).total_seconds()]


async def test_timers_take_a_duration_or_an_instant() -> None:
    """Row E-15."""
    async with Client.embedded(naps) as client:
        async with stalls() as stalled:
            first, rest = await client.execute(naps, 20)
        assert 0.02 <= first < 1 + stalled.seconds
        assert 0.04 <= rest < 2 + stalled.seconds


async def test_a_timer_survives_a_restart_of_everything(tmp_path: Path) -> None:
    """Row E-15: not early, and at most a second late, though nobody was there to watch it."""
    file = tmp_path / "runs.sqlite"
    async with stalls() as stalled:
        async with Client.embedded(naps, db=file) as client:
            await client.start(naps, 60, id="n")
            began = time.time()
        async with Client.embedded(naps, db=file) as client:
            first, rest = await client.handle(naps, "n").result()
            ended = time.time()
    assert 0.06 <= first < 1 + stalled.seconds
    assert 0.12 <= rest < 2 + stalled.seconds
    assert ended - began < 3 + stalled.seconds


async def test_a_timer_of_a_child_can_be_given_up() -> None:
    """Row E-15: the loser of a race against a timer is canceled, and nothing is left over."""
    async with World(impatient, step) as world:
        GATES["held"] = Gate()
        run = await world.client.start(impatient)
        assert await run.result() == "gave up"
        assert [c.kind for c in commands(await run.history())] == ["task", "timer", "cancel"]
        assert isinstance((await run.history())[-1].event, RunEnded)


@workflow
async def impatient() -> str:
    held = step("held")
    patience = timer(0.02)
    await (held | patience)
    if held.done():
        return "in time"
    held.cancel()
    return "gave up"


async def test_a_workflow_class_as_a_child_is_typed_by_its_run() -> None:
    """Row E-9."""
    async with Client.embedded(step, Basket, keeper) as client:
        assert await client.execute(keeper) == 15


@workflow
async def keeper() -> int:
    return await workflow_of(Basket)()
