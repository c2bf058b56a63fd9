"""Turns whose events were too many for their message: what a live run lacks of them is asked for, and no more."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Client
from perdure.task import task
from perdure.workflow import workflow
from perdure_schemas import topics
from perdure_schemas.messages import GetHistory, HistoryPage, WorkflowTaskCompleted
from tests.sdk.worker.engine import Engine, Run, value, working

pytestmark = pytest.mark.asyncio

BEGUN: list[str] = []
"""Of which run the code has begun, once more for each replay."""


@task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@task
async def fill(size: int) -> str:
    return "x" * size


@workflow
async def hello(name: str) -> str:
    BEGUN.append(name)
    first = await greet(name)
    return first + await greet("again")


@workflow
async def rounds(times: int, width: int, size: int) -> int:
    BEGUN.append("rounds")
    total = 0
    for _ in range(times):
        total += sum(map(len, await asyncio.gather(*(fill(size) for _ in range(width)))))
    return total


async def page(engine: Engine, run: Run, worker_id: str) -> GetHistory:
    """Answers what the worker asks for."""
    question = await engine.next(GetHistory)
    events = [r for r in run.records if question.after_seq < r.seq <= question.up_to]
    answer = HistoryPage(
        workflow_id=run.id, run_id=run.run_id, events=events, after_seq=question.after_seq, last_seq=question.up_to
    )
    await engine.send(topics.inbox(worker_id), answer)
    return question


async def ask_without_events(run: Run) -> None:
    run.committed = len(run.records)
    await run.ask(events=[], previous_hash="", previous_nonce="", previous_base=0, hashes=[])


async def test_a_live_run_goes_on_with_what_it_lacks() -> None:
    BEGUN.clear()
    async with working(hello, greet) as (engine, worker):
        run = Run(engine, "hello", "Ann")
        first = await run.turn()
        run.settle(first.commands[0].id, "A")
        await ask_without_events(run)
        assert (await page(engine, run, worker.id)).after_seq == first.base
        message, second = await engine.next_message(WorkflowTaskCompleted)
        assert [value(each.args) for each in second.commands] == [["again"]]
        run.commit(message.id, second)
        run.settle(second.commands[0].id, "B")
        last = await run.turn()
        assert last.completion is not None
        assert value(last.completion.result) == "AB"
        assert BEGUN == ["Ann"]


async def test_a_live_run_that_another_worker_has_overtaken_is_rebuilt_from_the_beginning() -> None:
    BEGUN.clear()
    async with working(hello, greet) as (engine, worker):
        run = Run(engine, "hello", "Ann")
        first = await run.turn()
        run.settle(first.commands[0].id, "A")
        async with working(hello, greet) as (elsewhere, other):
            run.engine = elsewhere
            await ask_without_events(run)
            assert (await page(elsewhere, run, other.id)).after_seq == 0
            message, second = await elsewhere.next_message(WorkflowTaskCompleted)
            run.commit(message.id, second)
        run.engine = engine
        run.settle(second.commands[0].id, "B")
        await ask_without_events(run)
        assert (await page(engine, run, worker.id)).after_seq == first.base
        assert (await page(engine, run, worker.id)).after_seq == 0
        last = await engine.next(WorkflowTaskCompleted)
        assert last.completion is not None
        assert value(last.completion.result) == "AB"


async def test_rounds_of_large_results_replay_nothing() -> None:
    BEGUN.clear()
    async with asyncio.timeout(60), Client.embedded(rounds, fill) as client:
        assert await client.execute(rounds, 4, 20, 50_000) == 4_000_000
    assert BEGUN == ["rounds"]
