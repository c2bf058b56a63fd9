"""The order of sets of futures is the run's own, not the memory allocator's; with a control that must differ."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure._replay import stdlib
from perdure._replay.futures import Branch, ReplayFuture
from perdure._replay.loop import running
from tests.sdk.replay import shapes, world

ROUNDS = 15
ORDER_MATTERS = ["wait_in_set_order", "task_group_fails", "wait_first_completed", "canceled_branches"]


def fragmented() -> Iterator[None]:
    """Rounds that each begin with other holes in the heap."""
    chance = random.Random(7)
    for _ in range(ROUNDS):
        heap = [(None,) * chance.randrange(4, 50) for _ in range(20_000)]  # of the sizes of tasks and futures
        kept = [each for each in heap if chance.random() < 0.5]
        heap.clear()
        yield
        kept.clear()


def outcomes(name: str) -> set[str]:
    shape = shapes.EVERY[name]
    return {repr(world.play(shape.workflow, 3, **shape.world).transcript) for _ in fragmented()}


@pytest.mark.parametrize("name", ORDER_MATTERS)
def test_a_fragmented_heap_changes_nothing(name: str) -> None:
    assert len(outcomes(name)) == 1


@pytest.mark.parametrize("name", ["wait_in_set_order", "task_group_fails"])
def test_with_the_stock_hash_it_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayFuture, "__hash__", object.__hash__)
    monkeypatch.setattr(Branch, "__hash__", object.__hash__)
    assert len(outcomes(name)) > 1


def test_as_completed_starts_in_the_order_given() -> None:
    assert len(outcomes("as_completed_coroutines")) == 1


def test_the_stock_as_completed_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stdlib.install()
    stock: Callable[..., Any] = asyncio.as_completed.__wrapped__  # type: ignore[attr-defined]
    monkeypatch.setattr(asyncio, "as_completed", stock)
    assert len(outcomes("as_completed_coroutines")) > 1


def test_runs_do_not_collide_in_the_registry_of_all_tasks() -> None:
    """Their hashes differ by the run id, else creating the n-th run would look at n others."""
    workflow = shapes.EVERY["gather"].workflow
    loops = [world.instance_of(workflow, run_id=f"r-{n}").loop for n in range(100)]
    assert len({hash(loop.create_future()) for loop in loops}) == 100


def test_names_imported_from_asyncio_before_are_replaced_too(tmp_path: Path) -> None:
    code = (
        "from asyncio import as_completed, gather, wait_for\n"
        "stock = gather\n"
        "holder = [gather]\n"
        "from perdure._replay import stdlib\n"
        "stdlib.install()\n"
        "import asyncio\n"
        "assert gather is asyncio.gather is not holder[0]\n"
        "assert wait_for is asyncio.wait_for and as_completed is asyncio.as_completed\n"
        "async def outside():\n"
        "    return await wait_for(gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)), 5)\n"
        "assert asyncio.run(outside()) == [1, 2]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_outside_workflows_asyncio_is_its_own() -> None:
    stdlib.install()

    async def outside() -> list[int]:
        assert running() is None
        condition, gate = asyncio.Condition(), asyncio.BoundedSemaphore(1)
        waiting, all_wait = 0, asyncio.Event()

        async def part(n: int) -> int:
            nonlocal waiting
            async with gate:
                await asyncio.sleep(0)
            async with condition:
                waiting += 1
                if waiting == 3:
                    all_wait.set()
                await condition.wait()  # only this gives the lock away: who holds it next finds this part waiting
            return n

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part(n)) for n in range(3)]
            await all_wait.wait()
            async with condition:
                condition.notify_all()
        values = [await each for each in asyncio.as_completed([asyncio.sleep(0, 5)])]
        return [*(each.result() for each in parts), *values]

    assert asyncio.run(outside()) == [0, 1, 2, 5]
