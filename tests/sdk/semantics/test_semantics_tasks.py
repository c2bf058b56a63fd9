"""Rows of the acceptance checklist on tasks: alone and in workflows, retries, time-outs, cancels, context."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from perdure import (
    Client,
    NonRetryable,
    Refused,
    Retry,
    RetryLater,
    TaskCanceled,
    TaskFailed,
    TaskTimedOut,
    current_task,
    task,
    workflow,
)
from perdure.testing import WorkflowEnvironment
from perdure_schemas import ids, topics
from perdure_schemas.common import Payload
from perdure_schemas.events import CommandSettled
from perdure_schemas.messages import RunTask, TaskChanged, TaskOutcome
from tests.sdk.semantics.world import Gate, World, commands, events, until

pytestmark = pytest.mark.asyncio

SEEN: list[Any] = []
"""What tasks have noted, in this process."""
GATES: dict[str, Gate] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    SEEN.clear()
    GATES.clear()


@task
async def double(n: int) -> int:
    return 2 * n


@task
def slow_double(n: int) -> int:
    return 2 * n


@task
async def stubborn(what: str) -> str:
    """Fails as it is told, until its last attempt."""
    context = current_task()
    SEEN.append(context.attempt)
    match what:
        case "late" if context.attempt < 3:
            raise RetryLater(dt.timedelta(hours=2))
        case "at once" if context.attempt < 3:
            raise RetryLater(0)
        case "never again":
            raise NonRetryable("it makes no sense")
        case "bad input":
            raise KeyError("of its kind")
        case "always":
            raise ConnectionError(f"attempt {context.attempt}")
        case _:
            return f"attempt {context.attempt}"


@task
async def held(name: str) -> str:
    SEEN.append(current_task())
    try:
        await GATES[name].passed(name)
    except asyncio.CancelledError:
        SEEN.append("canceled")
        GATES[name].tell("canceled")
        raise
    return name


@task
def busy(name: str) -> str:
    context = current_task()
    GATES[name].tell(name)
    while not context.canceled:
        time.sleep(0.001)
    SEEN.append(context.cancel_reason)
    GATES[name].tell("noticed")
    return "stopped"


@workflow
async def holding(name: str) -> str:
    try:
        return await held.options(heartbeat_timeout=60)(name)
    except TaskCanceled as error:
        return f"canceled: {error.name}"


@workflow
async def doubling(n: int) -> int:
    return await double(n)


@workflow
async def trying(what: str) -> str:
    try:
        return await stubborn.options(retry=Retry(attempts=4, initial=10, jitter=0))(what)
    except TaskFailed as error:
        return f"{type(error).__name__} of {error.name}: {error.__cause__}"


# --- stand-alone tasks ------------------------------------------------------------------------------------


async def test_a_client_runs_tasks_without_any_workflow() -> None:
    """Row E-31."""
    async with Client.embedded(double, slow_double) as client:
        assert await client.run(double, 21) == 42
        assert await client.run(slow_double, 21) == 42
        handle = await client.start_task(double, 3)
        assert await handle.result() == 6
        assert await client.task(handle.id).result() == 6


# --- retries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "seconds"), [("late", 4 * 3600), ("at once", 0)])
async def test_a_task_says_itself_when_it_is_tried_again(what: str, seconds: int) -> None:
    """Row E-32: after two hours, or at once, though its policy says ten seconds."""
    async with asyncio.timeout(60), WorkflowEnvironment(stubborn, trying) as env:
        began = env.now()
        assert await env.client.execute(trying, what) == "attempt 3"
        assert round((env.now() - began).total_seconds()) == seconds
        assert SEEN == [1, 2, 3]


async def test_a_task_says_itself_that_it_is_not_tried_again() -> None:
    """Row E-32."""
    async with asyncio.timeout(60), WorkflowEnvironment(stubborn, trying) as env:
        assert await env.client.execute(trying, "never again") == (
            "TaskFailed of stubborn: NonRetryable: it makes no sense"
        )
        assert SEEN == [1]


@workflow
async def backing_off() -> None:
    await stubborn.options(retry=Retry())("always")


async def test_delays_grow_up_to_a_limit_and_are_spread() -> None:
    """Row E-33: twelve attempts; each delay twice the last, at most a hundred seconds, within half of it."""
    async with asyncio.timeout(60), WorkflowEnvironment(backing_off) as env:
        moments: list[dt.datetime] = []

        def refuse(what: str) -> str:
            moments.append(env.now())
            raise ConnectionError(what)

        env.mock(stubborn, refuse)
        run = await env.client.start(backing_off)
        await env.sleep(1_800)
        assert (await run.describe()).status == "failed"
        delays = [(after - before).total_seconds() for before, after in pairwise(moments)]
        planned = [min(2.0**n, 100) for n in range(11)]
        assert len(delays) == len(planned)
        factors = [delay / plan for delay, plan in zip(delays, planned, strict=True)]
        assert all(0.5 <= factor <= 1.5 for factor in factors)
        assert max(factors) - min(factors) > 0.1, "not all tasks of an outage come back at one moment"


async def test_some_errors_are_not_worth_another_attempt() -> None:
    """Row E-34: named by the policy, with their subclasses; or told by the task itself."""
    async with asyncio.timeout(60), Client.embedded(stubborn) as client:
        policy = Retry(attempts=5, initial=60, non_retryable=[LookupError])
        with pytest.raises(TaskFailed, match="KeyError"):
            await client.run(stubborn.options(retry=policy), "bad input")
        with pytest.raises(TaskFailed, match="NonRetryable"):
            await client.run(stubborn.options(retry=policy), "never again")
        assert SEEN == [1, 1]


# --- cancel and time-outs -----------------------------------------------------------------------------------


async def test_one_task_is_canceled_and_its_workflow_hears_of_it() -> None:
    """Row E-38; row E-51: the workflow may go on without it."""
    gate = GATES["x"] = Gate()
    async with World(held, holding) as world:
        run = await world.client.start(holding, "x")
        await gate.reached()
        await world.client.task(commands_of(world)[0]).cancel("too dear")
        assert await run.result() == "canceled: held"
        (settled,) = events(await run.history(), CommandSettled)
        assert settled.outcome == "canceled"


def commands_of(world: World) -> list[str]:
    """Ids of the tasks that were dispatched."""
    return [run.task_id for run in world.spy.bodies(RunTask)]


async def test_a_canceled_task_is_told_where_it_runs() -> None:
    """Row E-39: an async one at its next await; one in a thread when it looks."""
    for name in "xy":
        GATES[name] = Gate()
    async with World(held, busy) as world:
        first = await world.client.start_task(held.options(heartbeat_timeout=60), "x")
        second = await world.client.start_task(busy.options(heartbeat_timeout=60), "y")
        for name in "xy":
            assert await GATES[name].reached() == name
        await first.cancel("enough")
        await second.cancel("enough")
        assert await GATES["x"].reached() == "canceled"
        assert await GATES["y"].reached() == "noticed"
        assert "enough" in SEEN
        with pytest.raises(TaskCanceled):
            await first.result()


@workflow
async def hurrying(name: str) -> str:
    try:
        return await held.options(timeout=0.05, retry=Retry(attempts=2, initial=0))(name)
    except TaskTimedOut as error:
        return f"{error.name} took too long"


async def test_an_attempt_has_a_time_limit_and_may_clean_up() -> None:
    """Row E-40: it is canceled where it runs, tried again, and in the end the workflow sees the time-out."""
    GATES["x"] = Gate()
    async with World(held, hurrying) as world:
        assert await world.client.execute(hurrying, "x") == "held took too long"
        await until(lambda: SEEN.count("canceled") == 2)


@task
def deaf(name: str) -> None:
    GATES[name].tell("deaf")
    DEAF.wait(5)
    SEEN.append("ended")


DEAF = threading.Event()


@workflow
async def impatient(name: str) -> str:
    try:
        await deaf.options(timeout=0.05)(name)
    except TaskTimedOut:
        return "timed out"
    return "ended"


async def test_a_time_limit_holds_for_a_task_that_does_not_listen() -> None:
    """Row E-40: its thread goes on, its answer does not wait for it, and comes too late."""
    DEAF.clear()
    GATES["x"] = Gate()
    async with World(deaf, impatient) as world:
        run = await world.client.start(impatient, "x")
        assert await run.result() == "timed out"
        DEAF.set()
        await until(lambda: "ended" in SEEN)
        await world.quiet()
        assert await run.result() == "timed out"


@workflow
async def patient_for_an_hour() -> str:
    policy = Retry(attempts=0, initial=dt.timedelta(minutes=10), factor=1, max=600, jitter=0)
    try:
        return await stubborn.options(retry=policy, total_timeout=3_500)("always")
    except TaskTimedOut as error:
        return f"{type(error).__name__}: {error.failure.message if error.failure else ''}"


async def test_a_task_has_a_time_limit_over_all_its_attempts() -> None:
    """Row E-41: an hour of attempts without limit, one every ten minutes."""
    async with asyncio.timeout(60), WorkflowEnvironment(stubborn, patient_for_an_hour) as env:
        began = env.now()
        assert (await env.client.execute(patient_for_an_hour)).startswith("TaskTimedOut")
        assert (env.now() - began).total_seconds() == pytest.approx(3_500, abs=5)
        assert len(SEEN) == 6


# --- what a task knows and tells ------------------------------------------------------------------------------


@task(tags=["dear"], retry=Retry(attempts=2, initial=0))
async def telling() -> dict[str, Any]:
    context = current_task()
    context.heartbeat({"done": 50 * context.attempt})  # the first of an attempt is sent at once, later ones may wait
    if context.attempt == 1:
        raise ConnectionError("first")
    return {
        "id": context.id,
        "attempt": context.attempt,
        "attempt_id": context.attempt_id,
        "name": context.name,
        "tags": list(context.tags),
        "workflow": context.workflow.workflow_id if context.workflow else None,
        "last": context.last_failure.message if context.last_failure else None,
    }


@workflow
async def asking() -> dict[str, Any]:
    return await telling.options(heartbeat_timeout=30)()


async def test_a_task_carries_tags_and_tells_its_progress() -> None:
    """Row E-46: what its author wrote on it, and what it writes itself while it runs, for people to see."""
    async with World(telling, asking) as world:
        run = await world.client.start(asking)
        assert (await run.result())["tags"] == ["dear"]
        await until(
            lambda: any(
                change.progress.data == b'{"done":50}'
                for change in world.spy.bodies(TaskChanged)
                if change.progress is not None
            )
        )


async def test_a_task_knows_its_context() -> None:
    """Row E-47: who it is, for which run, which attempt, and why the one before failed."""
    async with asyncio.timeout(60), Client.embedded(telling, asking) as client:
        run = await client.start(asking, id="a-1")
        about = await run.result()
        assert about["name"] == "telling"
        assert about["attempt"] == 2
        assert about["workflow"] == "a-1"
        assert about["last"] == "first"


async def test_the_id_of_a_task_is_the_same_for_all_attempts_and_derived() -> None:
    """Row E-48: an idempotency key for what the task does outside."""
    async with World(telling, asking) as world:
        run = await world.client.start(asking, id="a-1")
        about = await run.result()
        attempts = world.spy.bodies(RunTask)
        assert {each.task_id for each in attempts} == {about["id"]}
        assert {each.attempt for each in attempts} == {1, 2}
        assert len({each.attempt_id for each in attempts}) == 2
        assert about["id"] == ids.command_id("default", "a-1", run.run_id, 0, "0")
        assert about["attempt_id"] == ids.attempt_id(about["id"], 0, 2)


# --- outcomes ---------------------------------------------------------------------------------------------------


async def test_the_first_outcome_of_a_task_counts() -> None:
    """Row E-49: another answer, before or after the end of the run, changes nothing."""
    gate = GATES["x"] = Gate()
    async with World(held, holding) as world:
        run = await world.client.start(holding, "x")
        await gate.reached()
        (command,) = commands(await run.history())
        for number, value in enumerate(["first", "second"]):
            outcome = TaskOutcome(
                workflow_id=run.id,
                run_id=run.run_id,
                command_id=command.id,
                generation=0,
                attempt=1,
                outcome="completed",
                result=Payload("json", f'"{value}"'.encode()),
            )
            await world.send(topics.WORKFLOW_ENGINE, outcome, run.id, id=f"by-hand-{number}")
        assert await run.result() == "first"
        gate.open()
        await world.quiet()
        assert await run.result() == "first"
        assert len(list(events(await run.history(), CommandSettled))) == 1


async def test_a_failed_task_is_seen_by_its_workflow() -> None:
    """Row E-50: after its last attempt, with the error as its cause."""
    async with asyncio.timeout(60), WorkflowEnvironment(stubborn, trying) as env:
        assert await env.client.execute(trying, "always") == ("TaskFailed of stubborn: ConnectionError: attempt 4")
        assert SEEN == [1, 2, 3, 4]


@workflow
async def dropping(name: str) -> str:
    doomed = held(name)
    other = await double(4)
    doomed.cancel()
    try:
        await doomed
    except asyncio.CancelledError:
        return f"canceled, but {other}"
    return "not canceled"


async def test_a_workflow_cancels_a_task_of_its_own() -> None:
    """Row E-51: it sees the cancel at once, and the attempt is told."""
    gate = GATES["x"] = Gate()
    async with World(held, double, dropping) as world:
        run = await world.client.start(dropping, "x")
        assert await run.result() == "canceled, but 8"
        assert [command.kind for command in commands(await run.history())] == ["task", "task", "cancel"]
        with pytest.raises(Refused):
            await world.client.task(commands_of(world)[0]).cancel()
        gate.open()
