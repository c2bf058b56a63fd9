"""Closing a run lets no command out, runs nothing on another loop, and frees everything."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import Channel, all_of, branch, channel, sleep, workflow
from perdure._replay import eviction
from perdure._replay.futures import Branch, Deferred
from perdure._replay.instance import Instance
from perdure._replay.loop import ReplayLoop
from perdure_schemas.events import Recorded
from tests.sdk.replay import shapes, world
from tests.sdk.replay.shaping import doubled, echo

log: list[str] = []
SHAPES: list[Any] = []
KEPT_MAX = 2
"""Shapes of which something is left for the garbage collector: none of it can run."""
variable = contextvars.ContextVar[str]("variable", default="none")


def shape(fn: Any) -> Any:
    SHAPES.append(workflow(fn))
    return fn


@shape
async def in_finally() -> None:
    try:
        await echo(1)
    finally:
        log.append("before")
        echo(2)
        log.append("after")


@shape
async def await_in_finally() -> None:
    try:
        await echo(1)
    finally:
        await asyncio.sleep(0)
        await echo(2)


@asynccontextmanager
async def resource() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await echo(3)


@shape
async def in_async_with() -> None:
    async with resource():
        await echo(1)


@shape
async def swallows_everything() -> None:
    while True:
        try:
            await echo(1)
        except BaseException:
            for _ in range(3):
                try:
                    await asyncio.sleep(0)
                except BaseException:
                    continue
            raise


async def numbers() -> AsyncIterator[int]:
    try:
        yield await echo(1)
        yield await echo(2)
    finally:
        log.append("finalized")
        await echo(3)


@shape
async def in_async_generator() -> None:
    async for _ in numbers():
        await echo(4)


@shape
async def in_task_group() -> None:
    async def part(n: int) -> None:
        try:
            await echo(n)
        finally:
            echo(10 + n)

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(part(n))


@shape
async def in_lock_and_timeout() -> None:
    lock = asyncio.Lock()

    async def part() -> None:
        async with lock, asyncio.timeout(1000):
            await echo(1)

    await asyncio.gather(part(), part(), asyncio.shield(echo(2)))


@shape
async def not_yet_started() -> None:
    deferred = echo(1)
    deferred.add_done_callback(lambda _: branch(doubled(2)))
    await all_of(deferred, branch(sleep(100)))


@shape
async def resets_a_variable() -> None:
    token = variable.set("ours")
    try:
        await echo(1)
    finally:
        variable.reset(token)
        log.append("reset")


@shape
async def waits_for_signals() -> None:
    values: Channel[int] = channel("values", int)
    try:
        async for value in values:
            await echo(value)
    finally:
        await values.receive()


@shape
async def starts_branches_in_finally() -> None:
    try:
        await echo(1)
    finally:
        await asyncio.gather(doubled(1), doubled(2))


def begin(code: Any) -> Instance:
    """A live run after its first turn."""
    live = world.instance_of(code)
    live.turn([world.recorded(1, world.started())], base=1, generation=0)
    return live


@pytest.mark.parametrize("code", SHAPES, ids=lambda code: code.name)
def test_no_command_comes_out_of_a_closed_run(code: Any) -> None:
    live = begin(code)
    loop = live.loop
    live.evict()
    assert loop.out == []
    assert loop.branches == {} == loop.pending
    assert not loop.ready
    assert loop.fault is None


@pytest.mark.parametrize("code", SHAPES, ids=lambda code: code.name)
def test_nothing_is_left_for_the_garbage_collector(code: Any) -> None:
    """Else a `finally` would run during another run's turn, and its commands would be that run's."""
    live = begin(code)
    suspended = [branch.get_coro() for branch in live.loop.branches.values()]
    assert suspended
    live.evict()
    assert all(coro.cr_frame is None for coro in suspended)  # type: ignore[union-attr]


@pytest.mark.parametrize("code", SHAPES, ids=lambda code: code.name)
def test_a_run_dropped_without_closing_would_leak(code: Any) -> None:
    """The control: frames are suspended until somebody closes them."""
    live = begin(code)
    assert any(branch.get_coro().cr_frame is not None for branch in live.loop.branches.values())  # type: ignore[union-attr]
    live.evict()


def test_finally_runs_up_to_the_first_call_of_the_sdk() -> None:
    log.clear()
    begin(SHAPES[0]).evict()
    assert log == ["before"]


def test_a_context_variable_can_be_reset_while_closing() -> None:
    log.clear()
    begin(next(code for code in SHAPES if code.name == "resets_a_variable")).evict()
    assert log == ["reset"]


def test_instances_are_freed() -> None:
    """No task, future or loop outlives its run, wherever it was evicted."""
    stories = {name: world.play(shape.workflow, 2, **shape.world) for name, shape in shapes.EVERY.items()}
    gc.collect()
    before = alive()
    for name, story in stories.items():
        for end in range(1, len(story.events) + 1, 3):
            live = world.instance_of(shapes.EVERY[name].workflow)
            live.turn(story.events[:end], base=end, generation=0)
            live.evict()
            del live
    gc.collect()
    assert [found for id, found in alive().items() if id not in before] == []


def alive() -> dict[int, object]:
    """By id. Not how many: a thread that another test left behind in a turn may come back, and free its run."""
    kinds = (ReplayLoop, Branch, Deferred, Instance)
    return {id(each): each for each in gc.get_objects() if isinstance(each, kinds)}


def test_most_instances_are_freed_without_the_garbage_collector() -> None:
    """Eviction breaks the cycles of tasks, futures and handles; some of user code and asyncio remain."""
    kept: list[str] = []
    gc.collect()
    gc.disable()
    try:
        for code in SHAPES:
            live = begin(code)
            freed: list[weakref.ref[Any]] = [weakref.ref(live.loop)]
            freed += [weakref.ref(branch) for branch in live.loop.branches.values()]
            live.evict()
            del live
            kept += [code.name] * any(ref() is not None for ref in freed)
    finally:
        gc.enable()
    assert len(kept) <= KEPT_MAX, kept


@workflow
async def does_not_give_in() -> None:
    waits = asyncio.get_running_loop().create_future()
    while True:
        try:
            await waits
        except BaseException:
            if "given in" in log:
                raise
            waits = asyncio.get_running_loop().create_future()


def test_what_cannot_be_closed_is_kept_from_the_garbage_collector() -> None:
    """Its code would run at an arbitrary time, amid the turn of another run."""
    log.clear()
    live = begin(does_not_give_in)
    (coro,) = (branch.get_coro() for branch in live.loop.branches.values())
    live.evict()
    assert coro in eviction._unclosable
    log.append("given in")
    eviction._unclosable.clear()


def test_hooks_and_collector_are_as_before() -> None:
    hooks, unraisable = sys.get_asyncgen_hooks(), sys.unraisablehook
    begin(SHAPES[0]).evict()
    assert sys.get_asyncgen_hooks() == hooks
    assert sys.unraisablehook is unraisable
    assert gc.isenabled()
    gc.disable()
    try:
        begin(SHAPES[0]).evict()
        assert not gc.isenabled()
    finally:
        gc.enable()


@workflow
async def abandons_a_generator() -> None:
    async for _ in numbers():
        break
    await echo(9)


def test_an_abandoned_generator_is_not_finalized_on_the_loop_outside() -> None:
    """asyncio's hooks would run its `finally` as a task of the worker's own loop."""

    async def outside() -> int:
        live = begin(abandons_a_generator)
        (first,) = live.loop.pending.values()
        live.turn([world.recorded(2, world.settled(first.id, "completed", world.json(1)))], base=2, generation=0)
        live.evict()
        del live, first
        gc.collect()
        return len(asyncio.all_tasks())

    log.clear()
    assert asyncio.run(outside()) == 1
    assert "finalized" not in log


def test_within_a_running_loop_too() -> None:
    async def outside() -> None:
        task = asyncio.current_task()
        begin(SHAPES[0]).evict()
        assert asyncio.current_task() is task

    asyncio.run(outside())


@pytest.mark.parametrize("name", shapes.EVERY)
def test_cached_evicted_or_partially_warm_it_goes_on_alike(name: str) -> None:
    """After each turn: kept; closed and rebuilt; or rebuilt with events beyond the last turn known already."""
    shape = shapes.EVERY[name]
    story = world.play(shape.workflow, 4, **shape.world)
    for keep in KEPT:
        assert _with_evictions(shape.workflow, story, keep) == story.transcript


KEPT: list[Callable[[int], str]] = [
    lambda turn: "evicted",
    lambda turn: "partially warm",
    lambda turn: ("cached", "evicted", "partially warm")[turn % 3],
]


def _with_evictions(code: Any, story: world.Story, keep: Callable[[int], str]) -> world.Transcript:
    live = world.instance_of(code)
    history: list[Recorded] = []
    transcript = world.Transcript()
    for index, event in enumerate(story.events):
        history.append(world.renumbered(event, len(history) + 1))
        match keep(index):
            case "cached":
                known = []
            case "evicted":
                known = history[:-1]
            case _:
                known = history[:]
        if known:
            live.evict()
            live = world.instance_of(code)
            live.replay(known)
        turn = live.turn(history[-1:], base=len(history), generation=0)
        transcript.add(turn)
        history.append(world.committed(turn, len(history)))
    live.evict()
    return transcript
