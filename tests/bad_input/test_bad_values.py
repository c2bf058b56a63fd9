"""Values that cannot travel: told where they are handed over, while a neighbour goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import Client
from perdure.errors import PayloadTooLarge, RunFailed, SerializationError, TaskFailed
from tests.bad_input import hostile_app as app


def with_neighbour(work: Callable[[Client], Awaitable[None]]) -> None:
    """Does it while a neighbour runs, and again one after it."""

    async def both() -> None:
        async with asyncio.timeout(60), Client.embedded(app) as client:
            before = await client.start(app.neighbour, 1)
            await work(client)
            assert await before.result() == 8
            assert await client.execute(app.neighbour, 2) == 16

    asyncio.run(both())


def test_an_unserialisable_argument_of_a_start_names_the_parameter() -> None:
    async def work(client: Client) -> None:
        with pytest.raises(SerializationError, match="number"):
            await client.start(app.neighbour, threading.Lock())  # type: ignore[arg-type]

    with_neighbour(work)


def test_an_unserialisable_argument_of_a_task_is_told_in_the_workflow() -> None:
    async def work(client: Client) -> None:
        told = await client.execute(app.unserialisable_argument)
        assert told.startswith("SerializationError")
        assert "value" in told

    with_neighbour(work)


def test_an_unserialisable_result_fails_the_task_not_the_worker() -> None:
    async def work(client: Client) -> None:
        with pytest.raises(RunFailed, match="give_unserialisable"):
            await client.execute(app.unserialisable_result)

    with_neighbour(work)


def test_fifty_megabytes_as_an_argument_are_refused_at_the_call() -> None:
    async def work(client: Client) -> None:
        big: Any = "x" * (50 * 1024 * 1024)
        with pytest.raises(PayloadTooLarge, match="reference"):
            await client.run(app.take_anything, big)

    with_neighbour(work)


def test_fifty_megabytes_as_a_result_fail_the_task() -> None:
    async def work(client: Client) -> None:
        with pytest.raises(RunFailed, match="give_megabytes"):
            await client.execute(app.huge_result, 50)

    with_neighbour(work)


@pytest.mark.parametrize("wrong", ["three", None, [1], {"number": 1}, 1.5])
def test_a_wrong_type_is_told_by_the_worker_with_the_parameter_s_name(wrong: object) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(TaskFailed, match="number"):
            await client.run("double", wrong)

    with_neighbour(work)


def test_a_wrong_type_for_a_workflow_is_told_and_does_not_stop_the_worker() -> None:
    async def work(client: Client) -> None:
        with pytest.raises((RunFailed, SerializationError), match="number"):
            await client.execute(app.neighbour, "three")  # type: ignore[arg-type]

    with_neighbour(work)
