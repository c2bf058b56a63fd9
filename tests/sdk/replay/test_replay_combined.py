"""What `all_of` and `any_of` take, and what they say of anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure import all_of, any_of
from tests.sdk.replay.live import stopped
from tests.sdk.replay.shaping import echo


async def a_coroutine() -> None: ...


async def all_of_a_coroutine() -> None:
    coroutine = a_coroutine()
    try:
        await all_of(coroutine, echo(1))  # type: ignore[call-overload]  # wrong on purpose
    finally:
        coroutine.close()


async def all_of_one_coroutine() -> None:
    coroutine = a_coroutine()
    try:
        await all_of(coroutine)  # type: ignore[call-overload]  # wrong on purpose
    finally:
        coroutine.close()


async def any_of_a_number() -> None:
    await any_of(5)  # type: ignore[call-overload]  # wrong on purpose


async def any_of_a_list_with_a_number() -> None:
    await any_of([echo(1), 5])  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "code", [all_of_a_coroutine, all_of_one_coroutine, any_of_a_number, any_of_a_list_with_a_number]
)
def test_what_is_no_future_cannot_be_combined(code: Callable[[], Any]) -> None:
    told = stopped(code)
    assert f"TypeError: {code.__name__[:6]}() takes futures, such as calls of tasks and timer()" in told
    assert "Of a coroutine, branch(...) makes one." in told
