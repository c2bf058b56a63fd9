"""Attempts of tasks on a worker."""

from __future__ import annotations

import asyncio
import itertools
import linecache
import os
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from perdure.context import current_task
from perdure.retry import NonRetryable, RetryLater
from perdure.task import task
from perdure_runtime.adapters.queues import Holding
from perdure_runtime.adapters.subscriptions import Entry
from perdure_runtime.errors import MessageTooLarge
from perdure_schemas import topics
from perdure_schemas.common import Address, RetryPolicy, TaskOptions
from perdure_schemas.messages import (
    AttemptCancelRequested,
    AttemptHeartbeat,
    AttemptOutcome,
    AttemptStarted,
    RunTask,
    TaskOutcome,
    TaskResult,
    WorkerHello,
)
from tests.sdk.worker.engine import PATIENCE_S, TO_TASK, Engine, ahead_of_time, outcome_of, value, working

pytestmark = pytest.mark.asyncio

CLIENT = Address(topics.inbox("client"), "client")


@task
async def double(n: int) -> int:
    return 2 * n


@task
def threaded(n: int) -> list[Any]:
    return [2 * n, threading.current_thread().name, current_task().name]


@task
async def fail(how: str) -> None:
    match how:
        case "value":
            raise ValueError("no such order")
        case "never":
            raise NonRetryable("closed account")
        case "later":
            raise RetryLater(30)
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case _:
            raise asyncio.CancelledError


@task
def fail_in_thread() -> None:
    raise SystemExit(3)


@task(mode="process")
def in_process(how: str) -> int:
    if how == "die":
        os._exit(7)
    if how == "hang":
        time.sleep(60)
    if how == "raise":
        raise ValueError("bad image")
    time.sleep(0.2)
    return os.getpid()


@task
async def hang() -> str:
    await asyncio.sleep(60)
    return "never"


@task
async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass


GATE = threading.Event()
BLOCKED, FREED = threading.Event(), threading.Event()


@task
def wait_for_gate() -> str:
    current_task().heartbeat({"done": 1})
    while not GATE.wait(0.01):
        current_task().heartbeat({"done": 2})
        if current_task().canceled:
            raise RuntimeError(current_task().cancel_reason)
    return "open"


@task
async def block() -> None:
    BLOCKED.set()
    FREED.wait(60)  # what a careless author does


@task
async def hand_on() -> None:
    current_task().delegate()


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    for event in (GATE, BLOCKED, FREED):
        event.clear()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[int]:
    """How many deliveries were marked as begun, each time some were."""
    begun: asyncio.Queue[int] = asyncio.Queue()
    begin = Holding.begin

    def told_begin(self: Holding, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        begin(self, entries)
        begun.put_nowait(len(entries))

    monkeypatch.setattr(Holding, "begin", told_begin)
    return begun


async def test_a_result_goes_to_the_workflow_engine_then_to_the_task_engine_then_to_the_client() -> None:
    async with working(double) as (engine, _):
        run = await engine.run_task("double", 21, answer_to=[Address(topics.WORKFLOW_ENGINE, "w-1"), TO_TASK, CLIENT])
        told = await engine.next(TaskOutcome)
        assert (told.workflow_id, told.run_id, told.command_id) == ("w-1", "r-1", run.task_id)
        assert value(told.result) == 42
        outcome = await outcome_of(engine, run)
        assert (outcome.outcome, value(outcome.result), outcome.task) == ("completed", 42, None)
        assert value((await engine.next(TaskResult)).result) == 42
        assert not engine.has(AttemptStarted)


async def test_inline_tasks_give_the_same() -> None:
    async with working(double, threaded, inline_turns=True) as (engine, _):
        assert value((await outcome_of(engine, await engine.run_task("double", 1))).result) == 2
        result = value((await outcome_of(engine, await engine.run_task("threaded", 1))).result)
        assert result == [2, "MainThread", "threaded"]


async def test_a_plain_function_runs_in_a_thread_with_its_context() -> None:
    async with working(threaded) as (engine, _):
        outcome = await outcome_of(engine, await engine.run_task("threaded", 4))
        assert value(outcome.result) == [8, "perdure-task-1", "threaded"]


@pytest.mark.parametrize(
    ("how", "name", "retryable", "delay_ms"),
    [
        ("value", "ValueError", True, None),
        ("never", "NonRetryable", False, None),
        ("later", "RetryLater", True, 30_000),
        ("exit", "SystemExit", True, None),
        ("interrupt", "KeyboardInterrupt", True, None),
        ("canceled", "CancelledError", True, None),
    ],
)
async def test_whatever_a_task_raises_is_its_failure(
    how: str, name: str, retryable: bool, delay_ms: int | None
) -> None:
    async with working(fail, double) as (engine, _):
        run = await engine.run_task("fail", how)
        outcome = await outcome_of(engine, run)
        assert outcome.outcome == "failed"
        failure = outcome.failure
        assert failure is not None
        assert (failure.name, failure.retryable, failure.next_delay_ms) == (name, retryable, delay_ms)
        assert "in fail" in failure.stack
        assert "execution.py" not in failure.stack
        assert outcome.task is not None
        assert (outcome.task.args, outcome.task.answer_to) == (run.args, run.answer_to)
        assert not engine.has(TaskOutcome)
        assert await outcome_of(engine, await engine.run_task("double", 1))


async def test_system_exit_in_a_thread_is_a_failure_too() -> None:
    async with working(fail_in_thread) as (engine, _):
        outcome = await outcome_of(engine, await engine.run_task("fail_in_thread"))
        assert outcome.failure is not None
        assert outcome.failure.name == "SystemExit"


async def test_errors_that_the_policy_names_are_not_retryable() -> None:
    async with working(fail) as (engine, _):
        options = TaskOptions(retry=RetryPolicy(attempts_max=5, non_retryable=["LookupError", "ValueError"]))
        outcome = await outcome_of(engine, await engine.run_task("fail", "value", options=options))
        assert outcome.failure is not None
        assert not outcome.failure.retryable


async def test_arguments_that_do_not_fit_fail_for_good() -> None:
    async with working(double) as (engine, _):
        outcome = await outcome_of(engine, await engine.run_task("double", "many"))
        assert outcome.failure is not None
        assert not outcome.failure.retryable
        assert "'n'" in outcome.failure.message


async def test_an_unknown_task_is_told_what_there_is() -> None:
    async with working(double) as (engine, _):
        run = await engine.run_task("double", 1)
        await outcome_of(engine, run)
        unknown = RunTask(
            task_id="t", attempt_id="a", attempt=1, name="gone", args=run.args, options=run.options, answer_to=[TO_TASK]
        )
        await engine.send(topics.task_run("double"), unknown)
        outcome = await outcome_of(engine, unknown)
        assert outcome.failure is not None
        assert not outcome.failure.retryable
        assert "double" in outcome.failure.message


async def test_a_process_that_dies_takes_only_its_own_attempt_along() -> None:
    async with working(in_process) as (engine, _):
        other = await engine.run_task("in_process", "work")
        died = await outcome_of(engine, await engine.run_task("in_process", "die"))
        assert died.failure is not None
        assert (died.failure.name, died.failure.retryable) == ("WorkerDied", True)
        assert "exit code 7" in died.failure.message
        assert (await outcome_of(engine, other)).outcome == "completed"
        again = await outcome_of(engine, await engine.run_task("in_process", "work"))
        assert value(again.result) != os.getpid()


async def test_a_process_that_died_idle_is_replaced() -> None:
    async with working(in_process) as (engine, _):
        pid = value((await outcome_of(engine, await engine.run_task("in_process", "work"))).result)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        again = await outcome_of(engine, await engine.run_task("in_process", "work"))
        assert value(again.result) not in (pid, os.getpid())


async def test_a_task_in_a_process_fails_like_any_other_and_is_killed_at_its_time_out() -> None:
    async with working(in_process) as (engine, _):
        failed = await outcome_of(engine, await engine.run_task("in_process", "raise"))
        assert failed.failure is not None
        assert (failed.failure.name, failed.failure.message) == ("ValueError", "bad image")
        options = TaskOptions(attempt_timeout_ms=100)
        late = await outcome_of(engine, await engine.run_task("in_process", "hang", options=options))
        assert late.outcome == "timed-out"


async def test_an_async_attempt_is_canceled_at_its_time_out() -> None:
    async with working(hang) as (engine, _):
        options = TaskOptions(attempt_timeout_ms=50)
        outcome = await outcome_of(engine, await engine.run_task("hang", options=options))
        assert outcome.outcome == "timed-out"
        assert outcome.failure is not None
        assert "50 ms" in outcome.failure.message


async def test_an_attempt_that_cannot_be_stopped_keeps_its_slot_until_it_ends() -> None:
    @task
    def sleepy() -> None:
        GATE.wait(60)

    async with working(sleepy, double, slots=1) as (engine, _):
        options = TaskOptions(attempt_timeout_ms=30)
        outcome = await outcome_of(engine, await engine.run_task("sleepy", options=options))
        assert outcome.outcome == "timed-out"
        waiting = await engine.run_task("double", 1)
        with pytest.raises(TimeoutError):
            await outcome_of(engine, waiting, timeout=0.2)
        GATE.set()
        assert (await outcome_of(engine, waiting)).outcome == "completed"


async def test_a_stubborn_async_task_is_answered_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._worker.attempts.ABANDON_SECONDS", 0.1)
    async with working(stubborn) as (engine, _):
        options = TaskOptions(attempt_timeout_ms=30)
        outcome = await outcome_of(engine, await engine.run_task("stubborn", options=options))
        assert outcome.outcome == "timed-out"


async def cancel(engine: Engine, run: RunTask) -> None:
    request = AttemptCancelRequested(task_id=run.task_id, attempt_id=run.attempt_id, reason="not wanted")
    await engine.send(topics.inbox("worker-1"), request)


HEARTBEATS = TaskOptions(heartbeat_timeout_ms=400)


@pytest.mark.parametrize("declared", [hang, wait_for_gate], ids=["async", "thread"])
async def test_a_cancel_reaches_a_running_attempt(declared: Any) -> None:
    async with working(declared) as (engine, _):
        run = await engine.run_task(declared.name, options=HEARTBEATS)
        started = await engine.next(AttemptStarted)
        assert started.inbox == "inbox.worker-1"
        await cancel(engine, run)
        outcome = await outcome_of(engine, run)
        assert outcome.outcome == "canceled"
        assert not engine.has(TaskOutcome)


async def test_a_long_attempt_tells_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._worker.attempts.LONG_SECONDS", 0.1)
    monkeypatch.setattr("perdure._worker.messaging.SWEEP_SECONDS", 0.05)
    async with working(hang) as (engine, _):
        run = await engine.run_task("hang")
        assert (await engine.next(AttemptStarted)).attempt_id == run.attempt_id
        await cancel(engine, run)
        assert (await outcome_of(engine, run)).outcome == "canceled"


async def test_heartbeats_are_sent_at_most_four_times_per_time_out() -> None:
    async with working(wait_for_gate) as (engine, _):
        run = await engine.run_task("wait_for_gate", options=HEARTBEATS)
        beats = [await engine.next_message(AttemptHeartbeat) for _ in range(4)]
        GATE.set()
        await outcome_of(engine, run)
        moments = [message.at for message, _ in beats]
        between = [later - sooner for sooner, later in itertools.pairwise(moments)]
        assert min(between) >= 99, "100 ms, in clocks that count whole ones"
        assert value(beats[-1][1].progress) == {"done": 2}


async def test_a_blocked_loop_is_named_and_stops_no_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    async with working(block, wait_for_gate) as (engine, _):
        beating = await engine.run_task("wait_for_gate", options=HEARTBEATS)
        await engine.next(AttemptStarted)
        blocking = await engine.run_task("block")
        await asyncio.to_thread(BLOCKED.wait, PATIENCE_S)
        engine.seen.clear()
        for _ in range(2):  # the first may have been on its way
            await engine.next(AttemptHeartbeat)
        while "task_blocks_loop" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not engine.has(AttemptOutcome)
        FREED.set()
        assert (await outcome_of(engine, blocking)).outcome == "completed"
        GATE.set()
        await outcome_of(engine, beating)
    [record] = [r for r in caplog.records if getattr(r, "action", "") == "task_blocks_loop"]
    assert vars(record)["function"] == "block"
    assert vars(record)["file"] == __file__
    assert vars(record)["task"].startswith("block ")
    assert "wait(60)  # what a careless" in linecache.getline(__file__, vars(record)["line"])


async def test_a_delegated_task_is_completed_by_somebody_else() -> None:
    async with working(hand_on) as (engine, _):
        run = await engine.run_task("hand_on")
        outcome = await outcome_of(engine, run)
        assert outcome.delegated
        assert outcome.task is not None
        assert not engine.has(TaskOutcome)


async def test_the_same_attempt_delivered_twice_at_once_runs_once(begun: asyncio.Queue[int]) -> None:
    async with working(wait_for_gate) as (engine, _):
        run = await engine.run_task("wait_for_gate", options=HEARTBEATS)
        await engine.next(AttemptHeartbeat)
        await engine.send(topics.task_run("wait_for_gate"), run)
        assert [await begun.get(), await begun.get()] == [1, 1]
        GATE.set()
        await outcome_of(engine, run)
        with pytest.raises(TimeoutError):
            await outcome_of(engine, run, timeout=0.1)


async def test_drain_finishes_what_it_can_and_hands_back_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ahead = ahead_of_time(monkeypatch)
    async with working(hang, wait_for_gate, grace_seconds=3_600) as (engine, worker):
        stuck = await engine.run_task("hang", options=HEARTBEATS)
        quick = await engine.run_task("wait_for_gate", options=HEARTBEATS)
        await engine.next(AttemptStarted)
        await engine.next(AttemptStarted)
        draining = worker.drain()
        await asyncio.sleep(0.05)
        after = await engine.run_task("wait_for_gate")
        GATE.set()
        assert (await outcome_of(engine, quick)).outcome == "completed"
        ahead.seconds = 3_600
        await draining
        assert not engine.has(AttemptOutcome)
        left: list[str] = []
        for name in ("hang", "wait_for_gate"):
            consumer = await engine.broker.subscribe("default", [topics.task_run(name)], "workers", "shared")
            left += [item.message.body.attempt_id for item in await consumer.receive()]  # type: ignore[union-attr]
        assert left == [stuck.attempt_id, after.attempt_id]
    (told,) = [vars(record) for record in caplog.records if record.message == "attempt_handed_back"]
    facts = [told[fact] for fact in ("task", "task_id", "attempt", "workflow_id")]
    assert facts == ["hang", stuck.task_id, 1, "w-1"]


async def test_a_result_too_large_for_a_message_is_a_failure() -> None:
    @task
    async def huge() -> str:
        return "x" * 2_000_000

    async with working(huge, double) as (engine, _):
        one, two = await engine.run_task("huge"), await engine.run_task("double", 1)
        outcome = await outcome_of(engine, one)
        assert outcome.failure is not None
        assert (outcome.failure.name, outcome.failure.retryable) == ("PayloadTooLarge", False)
        assert (await outcome_of(engine, two)).outcome == "completed"


async def test_a_failure_with_arguments_at_the_limit_is_told_without_them() -> None:
    @task
    async def picky(text: str) -> None:
        raise ValueError("x" * 5_000)

    async with working(picky) as (engine, _):
        run = None
        for size in range(1024 * 1024, 0, -10):  # the largest arguments that can be sent at all
            try:
                run = await engine.run_task("picky", "x" * size)
                break
            except MessageTooLarge:
                continue
        assert run is not None
        outcome = await outcome_of(engine, run)
        assert outcome.failure is not None
        assert (outcome.failure.name, outcome.task) == ("PayloadTooLarge", None)


async def test_a_worker_tells_what_it_can_do() -> None:
    async with working(double, hang, slots=7, build="b2") as (engine, _):
        hello = await engine.next(WorkerHello)
        assert (hello.worker, hello.build, hello.tasks, hello.slots) == ("worker-1", "b2", ["double", "hang"], 7)


async def test_what_cannot_be_answered_goes_to_the_dead_letters() -> None:
    async with working(double) as (engine, _):
        dead = await engine.broker.subscribe("default", [topics.dead_letters(topics.task_run("double"))], "x", "shared")
        lost = await engine.run_task("double", 1, workflow=None)
        misplaced = WorkerHello(worker="w", build="b", workflows=[], tasks=[], slots=1)
        await engine.send(topics.task_run("double"), misplaced)
        bodies: list[Any] = []
        while len(bodies) < 2:
            bodies += [item.message.body for item in await dead.receive()]  # type: ignore[union-attr]
        assert bodies == [lost, misplaced]
        assert (await outcome_of(engine, await engine.run_task("double", 1))).outcome == "completed"
