"""A result that was not awaited: what uses it is told so, and what finds, combines and prints it is left alone."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Client, task, workflow

pytestmark = pytest.mark.asyncio

TOLD = "this is the Deferred of task half at position 0, not its result: await it first"
USES: dict[str, Callable[[Any], object]] = {
    "x + 1": lambda x: x + 1,
    "1 - x": lambda x: 1 - x,
    "x * x": lambda x: x * x,
    "-x": operator.neg,
    "x < 1": lambda x: x < 1,
    "1 >= x": lambda x: x <= 1,
    "x[0]": lambda x: x[0],
    "1 in x": lambda x: 1 in x,
    "int(x)": int,
    "x.total": lambda x: x.total,
}


@task
async def half(number: int) -> float:
    return number / 2


@workflow
async def uses(which: str) -> str:
    deferred = half(3)
    try:
        USES[which](deferred)
    except (TypeError, AttributeError) as error:
        await deferred
        return f"{type(error).__name__}: {error}"
    return "nothing"


@workflow
async def finds() -> list[bool]:
    one, other = half(1), half(2)
    known = {one: "one", other: "other"}
    answers = [one == one, one != other, known[one] == "one", bool(one), hasattr(one, "total"), callable(one)]
    await (one & other)
    await (one | other)
    return answers


@pytest.mark.parametrize("which", USES)
async def test_what_uses_it_is_told_to_await_it_first(which: str) -> None:
    async with Client.embedded(half, uses) as client:
        told = await client.execute(uses, which)
    error = "AttributeError: no 'total' here" if which == "x.total" else "TypeError"
    assert told == f"{error}: {TOLD}"


async def test_what_finds_and_combines_it_is_left_alone() -> None:
    async with Client.embedded(half, finds) as client:
        assert await client.execute(finds) == [True, True, True, True, False, False]
