"""Values that cannot travel: told where they are handed over, while a neighbour goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Client, convert
from perdure.errors import PayloadTooLarge, RunFailed, SerializationError, TaskFailed, UnknownName
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


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits for what other tasks bring about."""
    while not condition():  # noqa: ASYNC110 - they do not know that they are waited for
        await asyncio.sleep(0.01)


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


AS_JSON = len('[""]')
ROOM = convert.PAYLOAD_BYTES_MAX - AS_JSON


def on_a_file(folder: Path, work: Callable[[Client], Awaitable[None]]) -> None:
    """There messages have the size that they have on the wire."""

    async def main() -> None:
        async with asyncio.timeout(60), Client.embedded(app, db=folder / "big.sqlite") as client:
            await work(client)

    asyncio.run(main())


@pytest.mark.parametrize("more", [1, 1_000_000])
def test_what_is_over_the_limit_is_refused_at_the_call(more: int, tmp_path: Path) -> None:
    big = "x" * (ROOM + more)

    async def work(client: Client) -> None:
        with pytest.raises(PayloadTooLarge, match="the arguments of passes_on: "):
            await client.start(app.passes_on, big)
        with pytest.raises(PayloadTooLarge, match="the arguments of passes_on: "):
            await client.start("passes_on", big)
        with pytest.raises(PayloadTooLarge, match="memo: "):
            await client.start(app.passes_on, "", memo=big + "xx")
        with pytest.raises(PayloadTooLarge, match="the arguments of take_anything: "):
            await client.run(app.take_anything, big)
        run = await client.start(app.receives)
        with pytest.raises(PayloadTooLarge, match="signal to values: "):
            await run.signal("values", big + "xx")
        while not (listed := (await client.list()).runs):  # noqa: ASYNC110 - it was taken before
            await asyncio.sleep(0.01)
        assert [each.name for each in listed] == ["receives"]

    on_a_file(tmp_path, work)


def test_search_attributes_are_not_stored_beside_their_message(tmp_path: Path) -> None:
    """A message bears 1,048,576 bytes, and of arguments and memo at most a quarter of a megabyte each."""
    large = "x" * (convert.INLINE_BYTES_MAX - len('{"a":""}'))

    async def work(client: Client) -> None:
        with pytest.raises(PayloadTooLarge, match=r"attributes: 990,001 bytes"):
            await client.start(app.passes_on, "", attributes={"a": large + "x"})
        with pytest.raises(PayloadTooLarge, match="what passes_on is started with, attributes and memo included: "):
            await client.start(app.passes_on, "x", attributes={"a": large})
        whole = await client.start(app.passes_on, "x" * ROOM, memo="x" * ROOM, attributes={"a": large[530_000:]})
        assert len(await whole.result()) == ROOM

    on_a_file(tmp_path, work)


EDGES = [convert.OFFLOAD_ABOVE_BYTES, convert.INLINE_BYTES_MAX, 1_000_000, 1_048_576, convert.PAYLOAD_BYTES_MAX]
"""Above which something else is done: values stored beside messages; what a message of the engine's, or any, bears."""


@pytest.mark.parametrize("edge", EDGES)
def test_what_is_taken_travels_all_the_way(edge: int, tmp_path: Path) -> None:
    big = "x" * (edge - AS_JSON)

    async def work(client: Client) -> None:
        assert await client.execute(app.passes_on, big) == big
        run = await client.start(app.receives)
        await run.signal("values", big)
        assert await run.result() == len(big)

    on_a_file(tmp_path, work)


WRONG = ["three", None, [1], {"number": 1}, 1.5]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("by_name", [False, True])
def test_a_wrong_type_is_told_at_the_call(by_name: bool, wrong: Any) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(SerializationError, match="argument 'number' of double"):
            await client.run("double" if by_name else app.double, wrong)
        with pytest.raises(SerializationError, match="argument 'number' of neighbour"):
            await client.start("neighbour" if by_name else app.neighbour, wrong)
        assert len((await client.list()).runs) <= 1, "nothing was started beside the neighbour"

    with_neighbour(work)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_type_that_nobody_checked_is_told_by_the_worker(wrong: object) -> None:
    """As of a client elsewhere, which knows names only."""

    async def work(client: Client) -> None:
        client._backend._backend.registry = None  # type: ignore[attr-defined]
        with pytest.raises(TaskFailed, match="argument 'number' of double"):
            await client.run("double", wrong)
        with pytest.raises(RunFailed, match="InvalidArguments: argument 'number' of neighbour"):
            await client.execute("neighbour", wrong)

    with_neighbour(work)


@pytest.mark.parametrize("wrong", [(), (1, 2)])
def test_too_few_and_too_many_arguments_are_told_at_the_call(wrong: tuple[int, ...]) -> None:
    async def work(client: Client) -> None:
        call: Any = client.start
        with pytest.raises(TypeError, match=r"neighbour\(number: int\): "):
            await call(app.neighbour, *wrong)
        with pytest.raises(SerializationError, match="neighbour"):
            await call("neighbour", *wrong)

    with_neighbour(work)


def test_what_the_worker_of_the_client_does_not_have_is_told_at_the_call() -> None:
    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(app.neighbour) as client:
            with pytest.raises(UnknownName, match="no workflow 'blocked'; it has neighbour"):
                await client.execute(app.blocked, "pipe")
            with pytest.raises(UnknownName, match="no workflow 'typo'"):
                await client.start("typo")
            with pytest.raises(UnknownName, match="no task 'double'; it has none"):
                await client.run(app.double, 1)

    asyncio.run(work())


def test_a_run_whose_worker_lacks_a_task_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(app.neighbour) as client:
            run = await client.start(app.neighbour, 1)
            await eventually(lambda: "task_unknown_here" in caplog.text)
            while (described := await run.describe()).waits_for != "task double":  # noqa: ASYNC110 - read models lag
                await asyncio.sleep(0.01)
            assert described.status == "running"

    asyncio.run(work())
    assert "workflow neighbour waits for task double, which this worker does not have (it has: none)" in caplog.text


def test_who_waits_for_a_stuck_run_is_told_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure._client.stuck.LOOK_SECONDS", 0.05)

    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(app) as client:
            waiting = asyncio.ensure_future(client.execute(app.mistaken))
            await eventually(lambda: "is stuck: NameError" in caplog.text)
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(work())
    assert "workflow_stuck" in caplog.text, "the worker tells it with its traceback"
    assert "return undefined_name" in caplog.text
