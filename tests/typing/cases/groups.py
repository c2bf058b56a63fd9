"""Waiting for several things keeps the type of each: by operators for any number, by functions for up to eight."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from perdure import (
    Channel,
    Deferred,
    all_of,
    any_of,
    branch,
    channel,
    completed,
    inline,
    task,
    timer,
    workflow,
)


@task
async def number(a: int) -> int:
    return a


@task
async def text(a: int) -> str:
    return str(a)


@task
async def data(a: int) -> bytes:
    return bytes(a)


@workflow
async def child(a: int) -> float:
    return float(a)


async def ratio(a: int) -> float:
    return 1 / a


@dataclass
class Vote:
    by: str


async def operators() -> None:
    assert_type(await (number(1) & text(2)), tuple[int, str])
    assert_type(await (number(1) & text(2) & data(3)), tuple[int, str, bytes])
    assert_type(await (number(1) & text(2) & data(3) & child(4)), tuple[int, str, bytes, float])
    assert_type(
        await (number(1) & text(2) & number(3) & text(4) & number(5) & text(6) & number(7) & text(8) & data(9)),
        tuple[int, str, int, str, int, str, int, str, bytes],
    )
    assert_type(await (number(1) | text(2)), int | str)
    assert_type(await (number(1) | text(2) | data(3)), int | str | bytes)
    assert_type(await (number(1) | number(2)), int)
    assert_type(await ((number(1) & text(2)) | data(3)), tuple[int, str] | bytes)
    assert_type(await (branch(ratio(1)) & number(2)), tuple[float, int])
    assert_type(await (number(1) | timer(5)), int | None)

    number(1) & 2  # E
    number(1) | ratio(2)  # E
    _wrong: tuple[int, int] = await (number(1) & text(2))  # E


async def functions() -> None:
    assert_type(await all_of(number(1), text(2)), tuple[int, str])
    assert_type(await all_of(number(1), text(2), data(3)), tuple[int, str, bytes])
    assert_type(await all_of(number(1), text(2), data(3), child(4)), tuple[int, str, bytes, float])
    assert_type(
        await all_of(number(1), text(2), data(3), child(4), number(5), text(6), data(7), branch(ratio(8))),
        tuple[int, str, bytes, float, int, str, bytes, float],
    )
    assert_type(await all_of([number(1), number(2)]), list[int])
    assert_type(await all_of(number(n) for n in range(3)), list[int])
    assert_type(await any_of(number(1), text(2)), int | str)
    assert_type(await any_of(number(1), text(2), data(3), child(4)), int | str | bytes | float)
    assert_type(
        await any_of(number(1), text(2), data(3), child(4), number(5), text(6), data(7), timer(8)),
        int | str | bytes | float | None,
    )
    assert_type(await any_of(number(1), number(2)), int)
    assert_type(await any_of([number(1), number(2)]), int)
    assert_type(await any_of(number(n) for n in range(3)), int)
    assert_type(await any_of(text(1), all_of(text(2), number(3))), str | tuple[str, int])
    deferreds: list[Deferred[int]] = [number(1)]
    assert_type(await all_of(deferreds), list[int])
    assert_type(await all_of(*deferreds), tuple[int, ...])
    async for ended in completed(deferreds):
        assert_type(ended, Deferred[int])
        assert_type(await ended, int)
    assert_type(await asyncio.gather(number(1), text(2), ratio(3)), tuple[int, str, float])
    assert_type(await asyncio.wait_for(text(1), 5), str)

    all_of(1, 2)  # E
    all_of(number(1), ratio(2))  # E
    any_of([1, 2])  # E
    all_of(number)  # E
    _pair: tuple[str, int] = await all_of(number(1), text(2))  # E
    branch(number(1))  # E


async def by_context() -> str | tuple[str, str]:
    return await ((text(1) & text(2)) | text(3))


@workflow
class Election:
    votes: Channel[Vote] = Channel()
    names: Channel[list[str]] = Channel()

    async def run(self) -> None:
        assert_type(await self.votes.receive(), Vote)
        assert_type(await (self.votes.receive() & self.names.receive()), tuple[Vote, list[str]])
        assert_type(await any_of(self.votes.receive(), timer(timedelta(days=1))), Vote | None)
        assert_type(await self.votes.receive(where=lambda vote: vote.by == "Ada"), Vote)
        async for vote in self.votes:
            assert_type(vote, Vote)

        self.votes.receive(where=lambda vote: vote.whose == "Ada")  # E
        await self.votes.send(Vote("Ada"))  # E


async def channels_of_functions() -> None:
    assert_type(await channel("votes", Vote).receive(), Vote)
    assert_type(await channel("numbers", int).receive(), int)
    assert_type(await channel("anything").receive(), Any)
    either: Channel[int | None] = channel("either", int | None)
    assert_type(await either.receive(), int | None)

    channel(1)  # E


async def values() -> None:
    assert_type(inline(lambda: 5), int)
    assert_type(await timer(5), None)

    inline(5)  # E
    timer("5")  # E
