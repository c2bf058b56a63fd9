"""What a handle means while its run continues as new ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Coroutine
from typing import Any

import pytest

from perdure import Channel, Client, Refused, RunNotFound, continue_as_new, query, sleep, update, workflow
from perdure.testing import WorkflowEnvironment
from perdure_schemas.events import Started

pytestmark = pytest.mark.asyncio

RUNS = 8
RUN = dt.timedelta(days=5)
LONG = dt.timedelta(days=30)
"""The first runs are past their retention by then."""


@workflow
class Subscription:
    stop: Channel[str] = Channel()

    def __init__(self) -> None:
        self.number = -1

    async def run(self, number: int) -> int:
        self.number = number
        if number < RUNS:
            await sleep(RUN.total_seconds())
            continue_as_new(Subscription, number + 1)
        return number

    @query
    def now(self) -> int:
        return self.number

    @update
    async def ask(self) -> int:
        return self.number


async def after(env: WorkflowEnvironment, length: dt.timedelta) -> None:
    await env.sleep(length + dt.timedelta(hours=1))


@pytest.mark.parametrize("days", [5, 10, 30])
async def test_all_methods_of_a_held_handle_are_about_the_last_run(days: int) -> None:
    async with WorkflowEnvironment(Subscription) as env:
        held = await env.client.start(Subscription, 0, id="s")
        await after(env, dt.timedelta(days=days))
        current = await env.client.handle("s").describe()
        assert current.run_id != held.run_id
        assert (await held.describe()) == current
        assert await held.query(Subscription.now) == await held.update(Subscription.ask) == days // 5
        assert await held.history() == await env.client.handle("s", run_id=current.run_id).history()
        assert await held.tasks() == []
        await held.signal(Subscription.stop, "x")
        await held.pause()
        assert (await env.client.handle("s").describe()).status == "paused"
        await held.unpause()
        assert await held.result() == RUNS
        assert (await held.describe()).status == "completed"


async def test_a_handle_of_a_run_that_was_there_means_its_chain_too() -> None:
    async with WorkflowEnvironment(Subscription) as env:
        await env.client.start(Subscription, 0, id="s")
        await after(env, RUN)
        joined = await env.client.start(Subscription, 0, id="s", conflict="use-existing")
        await after(env, LONG)
        assert await joined.query(Subscription.now) == 7
        assert (await joined.describe()).status == "running"
        assert await joined.result() == RUNS


async def test_a_handle_means_no_later_start_under_its_id() -> None:
    async with WorkflowEnvironment(Subscription) as env:
        held = await env.client.start(Subscription, RUNS, id="s")
        assert await held.result() == RUNS
        await after(env, LONG)
        await env.client.start(Subscription, 0, id="s")
        asked: list[Coroutine[Any, Any, object]] = [held.describe(), held.history(), held.tasks(), held.pause()]
        for each in asked:
            with pytest.raises(RunNotFound):
                await each


async def told(client: Client, run_id: str) -> list[str]:
    """What a handle of that very run says to all that is asked of its code, or to change it."""
    run = client.handle(Subscription, "s", run_id=run_id)
    asked: list[Coroutine[Any, Any, object]] = [
        run.query(Subscription.now),
        run.update(Subscription.ask),
        run.signal(Subscription.stop, "x"),
        run.cancel(),
        run.resume(),
        run.move("b"),
    ]
    said = []
    for each in asked:
        with pytest.raises(Refused) as refused:
            await each
        said.append(str(refused.value))
    return said


async def test_a_handle_of_one_very_run_reads_that_one_and_changes_no_other() -> None:
    async with WorkflowEnvironment(Subscription) as env:
        first = await env.client.start(Subscription, 0, id="s")
        await after(env, RUN)
        very = env.client.handle("s", run_id=first.run_id)
        assert (await very.describe()).status == "continued-as-new"
        begun = (await very.history())[0].event
        assert isinstance(begun, Started)
        assert begun.run_id == first.run_id
        for words in await told(env.client, first.run_id):
            assert "has continued as a new one; for the current run take the handle of 's' without a run id" in words
        await after(env, LONG)
        with pytest.raises(RunNotFound):
            await very.history()
