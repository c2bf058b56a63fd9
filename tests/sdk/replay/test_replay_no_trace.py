"""Functions run inline and queries leave no trace in what the workflow does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import (
    Channel,
    all_of,
    branch,
    inline,
    patched,
    query,
    random,
    update,
    uuid4,
    workflow,
)
from perdure.errors import NotInWorkflow
from perdure.workflow import workflow_of
from perdure_schemas.events import UpdateReceived
from tests.sdk.replay import world
from tests.sdk.replay.live import Live, instance_of, stopped
from tests.sdk.replay.shaping import doubled, echo


@workflow
async def orders_after_inline(dispatched: int) -> list[int]:
    inline(lambda: [echo(100 + n).position for n in range(dispatched)])
    done, _ = await asyncio.wait([echo(n) for n in range(12)])
    return [future.result() for future in done]


def test_futures_made_inline_do_not_change_the_order_of_sets() -> None:
    """A replay does not run the function, and numbers the futures after it alike."""
    for dispatched in range(0, 32, 3):
        story = world.play(orders_after_inline, 1, args=[dispatched])
        cut = world.cut(orders_after_inline, story.events, range(1, len(story.events) + 1))
        rebuilt = instance_of(orders_after_inline)
        rebuilt.replay(cut.history[:-2])
        turn = rebuilt.turn(cut.history[-2:], base=len(cut.history) - 1, generation=0)
        assert world.ended(turn.completion) == story.transcript.completion


def test_an_inline_function_cannot_wake_what_waits() -> None:
    async def code() -> None:
        flag = asyncio.Event()
        waiter = branch(_waits(flag))
        await asyncio.sleep(0)
        inline(flag.set)
        await waiter

    assert "inline(fn) runs fn in no replay" in stopped(code)


async def _waits(flag: asyncio.Event) -> None:
    await flag.wait()


def test_an_inline_function_cannot_start_a_branch() -> None:
    async def code() -> None:
        inline(lambda: branch(doubled(1)).done())

    assert "inline(fn) runs fn in no replay" in stopped(code)


@workflow
class Asked:
    values: Channel[int] = Channel()

    def __init__(self) -> None:
        self.flag = asyncio.Event()

    async def run(self) -> object:
        waiter = branch(self._waits())
        first = await echo(1)
        return [first, random().random(), str(uuid4()), patched("new"), await waiter]

    async def _waits(self) -> str:
        await self.flag.wait()
        return "woken"

    @query
    def numbers(self) -> list[Any]:
        return [random().random(), str(uuid4()), random().random()]

    @query
    def is_patched(self) -> bool:
        return patched("new")

    @query
    def sets(self) -> None:
        self.flag.set()

    @query
    def receives(self) -> None:
        self.values.receive()

    @query
    def calls(self) -> None:
        echo(1)

    @query
    def starts(self) -> None:
        branch(doubled(1))

    @query
    def combines(self) -> None:
        all_of([])

    @query
    def sleeps(self) -> None:
        asyncio.get_running_loop().call_later(1, print)

    @update
    async def wake(self) -> None:
        self.flag.set()


def _end_of(ask: list[str]) -> bytes:
    live = Live(workflow_of(Asked))
    live.begin()
    for name in ask:
        live.query(name)
    live.complete("1", 1)
    turn = live.feed(UpdateReceived(update_id="u", name="wake", args=world.json([])))
    assert turn.completion is not None
    return world.ended(turn.completion)


def test_queries_take_no_positions() -> None:
    assert _end_of(["numbers", "is_patched", "numbers"]) == _end_of([])


def test_a_query_gets_the_same_numbers_each_time() -> None:
    live = Live(workflow_of(Asked))
    live.begin()
    assert live.query("numbers") == live.query("numbers")


def test_what_a_query_asks_of_patched_is_not_recorded() -> None:
    live = Live(workflow_of(Asked))
    live.begin()
    assert live.query("is_patched") is True
    turn = live.feed(UpdateReceived(update_id="u", name="wake", args=world.json([])))
    assert turn.patches == []


@pytest.mark.parametrize("name", ["sets", "receives", "calls", "starts", "combines", "sleeps"])
def test_a_query_only_reads(name: str) -> None:
    live = Live(workflow_of(Asked))
    live.begin()
    with pytest.raises(NotInWorkflow, match="a query only reads"):
        live.query(name)
    turn = live.complete("1", 1)
    assert turn.stoppage is None
    assert turn.completion is None, "the query has woken the run"
