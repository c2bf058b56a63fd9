"""Turns of workflows on a worker."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from perdure._replay import collector
from perdure._worker.turn_thread import TurnThread
from perdure._worker.turns import TurnAnswer, TurnDesk, TurnJob, TurnResult
from perdure.errors import Blocked
from perdure.flow import channel, patched, signal
from perdure.task import task
from perdure.workflow import query, workflow
from perdure_runtime.ports import Delivery
from perdure_schemas import topics
from perdure_schemas.common import Address, Query
from perdure_schemas.messages import (
    GetHistory,
    HistoryPage,
    QueryResult,
    RunWorkflowTask,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)
from tests.sdk.worker.engine import PATIENCE_S, Run, json, value, working

pytestmark = pytest.mark.asyncio


@task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow
async def hello(name: str) -> str:
    first = await greet(name)
    return first + await greet("again")


@workflow
class Counter:
    def __init__(self) -> None:
        self.seen = 0

    async def run(self) -> int:
        for _ in range(3):
            await greet("x")
            self.seen += 1
        return self.seen

    @query
    def everything(self) -> str:
        return "x" * 2_000_000

    @query
    def count(self) -> int:
        return self.seen


@workflow
async def broken() -> None:
    raise KeyError("a bug of its author")


@workflow
async def endless() -> None:
    while True:
        pass


HELD = threading.Lock()
HELD.acquire()


@workflow
async def in_c() -> None:
    HELD.acquire(timeout=60)  # a call into C, which no interrupt reaches


INLINE = pytest.mark.parametrize("inline", [False, True])


@INLINE
async def test_turns_continue_the_live_run_to_its_end(inline: bool) -> None:
    async with working(hello, greet, inline_turns=inline) as (engine, _):
        run = Run(engine, "hello", "Ann")
        first = await run.turn()
        assert [c.name for c in first.commands] == ["greet"]
        run.settle(first.commands[0].id, "A")
        second = await run.turn()
        run.settle(second.commands[0].id, "B")
        last = await run.turn()
        assert last.completion is not None
        assert value(last.completion.result) == "AB"
        assert not engine.has(GetHistory)


async def test_the_same_turn_asked_again_gives_the_same_nonce() -> None:
    async with working(hello, greet) as (engine, _):
        run = Run(engine, "hello", "Ann")
        await run.ask()
        one, _ = await engine.next_message(WorkflowTaskCompleted)
        await run.ask()
        two, _ = await engine.next_message(WorkflowTaskCompleted)
        assert (one.id, one.body) == (two.id, two.body)


async def test_the_same_turn_asked_twice_before_it_is_answered_is_answered_once() -> None:
    """An early commit asks for a turn again; answered twice, its commands would be published twice."""
    async with working(hello, greet, grace_seconds=0) as (engine, _):
        run = Run(engine, "hello", "Ann")
        first = await run.turn()
        run.settle(first.commands[0].id, "A")
    async with working(hello, greet) as (engine, worker):
        run.engine = engine
        await run.ask()
        await run.ask()
        question = await engine.next(GetHistory)
        page = [r for r in run.records if r.seq <= question.up_to]
        answer = HistoryPage(workflow_id=run.id, run_id=run.run_id, events=page, after_seq=0, last_seq=question.up_to)
        await engine.send(topics.inbox(worker.id), answer)
        await engine.next(WorkflowTaskCompleted)
        with pytest.raises(TimeoutError):
            await engine.next(WorkflowTaskCompleted, timeout=0.1)


async def test_a_run_not_in_the_cache_is_rebuilt_from_pages_of_its_history() -> None:
    async with working(hello, greet) as (engine, _):
        run = Run(engine, "hello", "Ann")
        first = await run.turn()
        run.settle(first.commands[0].id, "A")
    async with working(hello, greet) as (engine, worker):
        run.engine = engine
        other = Run(engine, "hello", "Bob")
        await run.ask()
        question = await engine.next(GetHistory)
        assert (question.after_seq, question.up_to) == (0, run.committed)
        assert await other.turn()  # others go on meanwhile
        page = [r for r in run.records if r.seq <= run.committed]
        for records in (page[:1], page[:1], page[1:]):  # the first one twice
            await engine.send(
                topics.inbox(worker.id),
                HistoryPage(
                    workflow_id=run.id,
                    run_id=run.run_id,
                    events=records,
                    after_seq=records[0].seq - 1,
                    last_seq=run.committed,
                ),
            )
        done = await engine.next(WorkflowTaskCompleted, lambda m: m.workflow_id == run.id)
        assert [value(c.args) for c in done.commands] == [["again"]]


async def test_a_lost_question_for_history_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._worker.histories.ASK_SECONDS_FIRST", 0.05)
    async with working(hello, greet, grace_seconds=0) as (engine, _):
        run = Run(engine, "hello", "Ann")
        await run.ask(generation=1)
        first, _ = await engine.next_message(GetHistory)
        again, _ = await engine.next_message(GetHistory)
        assert first.id != again.id


async def test_queries_are_answered_and_change_nothing() -> None:
    async with working(Counter, greet) as (engine, _):
        run = Run(engine, "Counter")
        first = await run.turn()
        run.settle(first.commands[0].id, "x")
        await run.turn()
        asked = Query(query_id="q-1", name="count", args=json(), reply_to=Address(topics.inbox("client"), "client"))
        wrong = Query(query_id="q-2", name="nope", args=json(), reply_to=Address(topics.inbox("client"), "client"))
        assert run.last is not None
        base = run.last.base
        await run.ask(queries=[asked, wrong], events=[], base=base, base_hash=run.hashes[base])
        answer = await engine.next(QueryResult)
        assert (answer.query_id, answer.status, value(answer.result)) == ("q-1", "ok", 1)
        refused = await engine.next(QueryResult)
        assert refused.status == "refused"
        assert refused.failure is not None
        assert "count" in refused.failure.message
        assert not engine.has(WorkflowTaskCompleted)


async def test_a_query_whose_answer_is_too_large_is_refused_and_does_not_hurt_the_run() -> None:
    async with working(Counter, greet) as (engine, _):
        run = Run(engine, "Counter")
        await run.turn()
        client = Address(topics.inbox("client"), "client")
        asked = Query(query_id="q-1", name="everything", args=json(), reply_to=client)
        assert run.last is not None
        base = run.last.base
        await run.ask(queries=[asked], events=[], base=base, base_hash=run.hashes[base])
        answer = await engine.next(QueryResult)
        assert answer.status == "refused"
        assert answer.failure is not None
        assert answer.failure.name == "PayloadTooLarge"
        assert not engine.has(WorkflowTaskFailed)


async def test_a_bug_makes_the_turn_fail_with_its_traceback() -> None:
    async with working(broken) as (engine, _):
        await Run(engine, "broken").ask()
        failed = await engine.next(WorkflowTaskFailed)
        assert failed.kind == "bug"
        assert failed.failure.name == "KeyError"
        assert "test_worker_turns.py" in failed.failure.stack


@workflow
async def careless(kind: str) -> None:
    if kind == "patch":
        patched(cast(str, 7))
    if kind == "signal":
        signal("w-2", cast(str, 7), 1)
    if kind == "error":
        raise ValueError(os.fsdecode(b"\xff.jpg"))
    raise ValueError("not refused")


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("patch", "TypeError", "the id of a patch must be a str, not 7"),
        ("signal", "TypeError", "the name of a channel must be a str, not 7"),
        ("error", "ValueError", "\\udcff.jpg"),
    ],
)
async def test_what_no_message_can_hold_makes_its_run_stuck_and_no_other(kind: str, name: str, text: str) -> None:
    async with working(careless, hello, greet) as (engine, _):
        await Run(engine, "careless", kind).ask()
        failed = await engine.next(WorkflowTaskFailed)
        assert (failed.kind, failed.failure.name, failed.failure.message) == ("bug", name, text)
        assert await Run(engine, "hello", "Ann").turn()


async def test_an_answer_that_cannot_be_encoded_makes_its_run_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.flow.check_text", lambda text, what: text)  # as if a check had been forgotten
    async with working(careless_name, hello, greet) as (engine, _):
        await Run(engine, "careless_name").ask()
        failed = await engine.next(WorkflowTaskFailed)
        assert failed.kind == "bug"
        assert "cannot be sent" in failed.failure.message
        assert await Run(engine, "hello", "Ann").turn()


@workflow
async def careless_name() -> None:
    await channel("\udcff").receive()


async def test_an_unknown_workflow_is_told_what_there_is() -> None:
    async with working(hello, greet) as (engine, _):
        run = Run(engine, "gone")
        await engine.send(topics.workflow_run("hello"), run.task(), key=run.id)
        failed = await engine.next(WorkflowTaskFailed)
        assert "'gone'" in failed.failure.message
        assert "hello" in failed.failure.message


async def test_a_turn_that_took_three_workers_along_is_not_run() -> None:
    async with working(hello, greet) as (engine, worker):
        await worker.drain()
        run = Run(engine, "hello", "Ann")
        await run.ask()
        await engine.lose(topics.workflow_run("hello"), "key-shared", 3)
        running = asyncio.create_task(worker.run())
        failed = await engine.next(WorkflowTaskFailed)
        assert failed.kind == "worker-died"
        await worker.drain()
        await running


@pytest.fixture
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Turns are soon left behind, and their threads come back before the next test."""
    for name, seconds in (("WARN", 0.1), ("INTERRUPT", 0.2), ("ABANDON", 0.1), ("LOOK", 0.05)):
        monkeypatch.setattr(f"perdure._worker.turn_thread.{name}_SECONDS", seconds)
    before = set(threading.enumerate())
    yield
    HELD.release()
    try:
        for thread in set(threading.enumerate()) - before:
            if thread.name == "perdure-workflows":
                thread.join(30)
                assert not thread.is_alive()
    finally:
        HELD.acquire(blocking=False)  # unless a turn has it still


@pytest.mark.usefixtures("_short_turns")
async def test_an_endless_turn_is_named_and_ended_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with working(endless, hello, greet) as (engine, _):
        run = Run(engine, "hello", "Ann")
        first = await run.turn()
        await Run(engine, "endless").ask()
        run.settle(first.commands[0].id, "A")
        second = await run.turn()
        failed = await engine.next(WorkflowTaskFailed)
        assert failed.kind == "timeout"
        assert "in endless" in failed.failure.stack
        assert failed.failure.message.endswith("was interrupted: computing belongs in a task")
        assert [value(c.args) for c in second.commands] == [["again"]]
    [record] = [r for r in caplog.records if getattr(r, "workflow", "") == "endless"]
    assert (vars(record)["action"], vars(record)["function"]) == ("turn_blocks", "endless")
    assert vars(record)["file"] == __file__


@pytest.mark.usefixtures("_short_turns")
@pytest.mark.parametrize("on", [True, False])
async def test_garbage_is_collected_while_a_turn_is_left_behind_unless_the_app_wants_none(on: bool) -> None:
    async with working(in_c, hello, greet) as (engine, _):
        if not on:
            gc.disable()
        try:
            await Run(engine, "in_c").ask()
            assert await Run(engine, "hello", "Ann").turn()
            assert gc.isenabled() is on
        finally:
            gc.enable()


@pytest.mark.usefixtures("_short_turns")
async def test_garbage_is_collected_after_an_interrupt_that_came_on_the_way_out_of_a_turn() -> None:
    class Desk:
        def run(self, _: TurnJob) -> TurnAnswer:
            try:
                collector.hold()
                while True:
                    pass
            except Blocked:
                return TurnAnswer()

        def close(self) -> None:
            """It has no runs."""

    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    desk = cast(TurnDesk, Desk())
    turns = TurnThread(lambda: desk, lambda _: done.set_result(None), asyncio.get_running_loop())
    turns.submit([TurnJob(cast(RunWorkflowTask, SimpleNamespace(name="w", workflow_id="w-1")), cast(Delivery, None))])
    await asyncio.wait_for(done, PATIENCE_S)
    turns.stop()
    assert gc.isenabled()


class FakeDesk:
    """Its turns are a function, which may be C's own."""

    def __init__(self, run: Callable[[TurnJob], TurnAnswer]) -> None:
        self.run = run

    def failed(self, _: TurnJob, error: BaseException) -> TurnAnswer:
        return TurnAnswer(nonce=type(error).__name__)

    def close(self) -> None:
        """It has no runs."""


def fake_turns(run: Callable[[TurnJob], TurnAnswer]) -> tuple[TurnThread, asyncio.Queue[TurnResult]]:
    results: asyncio.Queue[TurnResult] = asyncio.Queue()
    desk = cast(TurnDesk, FakeDesk(run))

    def done(batch: list[tuple[TurnJob, TurnResult]]) -> None:
        for _, result in batch:
            results.put_nowait(result)

    return TurnThread(lambda: desk, done, asyncio.get_running_loop()), results


async def next_nonce(results: asyncio.Queue[TurnResult]) -> str:
    result = await asyncio.wait_for(results.get(), PATIENCE_S)
    assert isinstance(result, TurnAnswer)
    return result.nonce


def fake_job() -> TurnJob:
    return TurnJob(cast(RunWorkflowTask, SimpleNamespace(name="w", workflow_id="w-1")), cast(Delivery, None))


@pytest.mark.usefixtures("_short_turns")
async def test_an_interrupt_that_comes_as_the_turn_returns_ends_neither_the_thread_nor_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Raised where nobody catches it, it once ended the thread: the worker took turns and answered none."""
    monkeypatch.setattr("perdure._worker.turn_thread.ABANDON_SECONDS", 60)
    answers: queue.SimpleQueue[TurnAnswer] = queue.SimpleQueue()
    turns, results = fake_turns(cast("Any", answers.get))  # a call into C: what was raised meanwhile is raised after it
    turns.submit([fake_job()])
    while not turns._lane.interrupted_at:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    answers.put(TurnAnswer(nonce="just done"))
    assert await next_nonce(results) in {"just done", "Blocked"}
    answers.put(TurnAnswer(nonce="next"))
    turns.submit([fake_job()])
    assert await next_nonce(results) == "next"
    turns.stop()


async def test_a_process_that_was_stopped_blames_no_turn_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._worker.turn_thread.LOOK_SECONDS", 0.01)
    stopped = threading.Event()

    def monotonic() -> float:
        return time.monotonic() + (3_600 if stopped.is_set() else 0)

    monkeypatch.setattr("perdure._worker.turn_thread.time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))

    def run(_: TurnJob) -> TurnAnswer:
        stopped.set()
        try:
            time.sleep(0.3)  # some looks
        except Blocked:
            return TurnAnswer(nonce="Blocked")
        return TurnAnswer(nonce="done")

    turns, results = fake_turns(run)
    turns.submit([fake_job()])
    assert await next_nonce(results) == "done"
    turns.stop()


@pytest.mark.usefixtures("_short_turns")
async def test_a_turn_that_cannot_be_interrupted_is_left_behind() -> None:
    async with working(in_c, hello, greet) as (engine, _):
        stuck = Run(engine, "in_c")
        await stuck.ask()
        other = Run(engine, "hello", "Ann")
        assert await other.turn()
        failed = await engine.next(WorkflowTaskFailed)
        assert (failed.workflow_id, failed.kind) == (stuck.id, "timeout")
        assert "could not be interrupted" in failed.failure.message
