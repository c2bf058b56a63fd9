"""Resume of a run that has made up for what it had done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import Client, Refused, Retry, RunFailed, SerializationError, TaskFailed, task, workflow

calls: list[str] = []


@task
async def charge(item: str) -> str:
    calls.append("charge")
    return f"receipt {calls.count('charge')}"


@task(retry=Retry(attempts=1))
async def ship(item: str) -> str:
    calls.append("ship")
    if calls.count("ship") == 1:
        raise ConnectionError("no van")
    return f"{item} shipped"


@task
async def refund(receipt: str) -> None:
    calls.append(f"refund {receipt}")


@workflow
async def order(item: str) -> list[str]:
    receipt = await charge(item)
    try:
        return [receipt, await ship(item)]
    except TaskFailed:
        await refund(receipt)
        raise


def with_refunded(work: Callable[[Client], Awaitable[None]]) -> None:
    async def opened() -> None:
        calls.clear()
        async with asyncio.timeout(60), Client.embedded(order, charge, ship, refund) as client:
            handle = await client.start(order, "book", id="o")
            with pytest.raises(RunFailed, match="no van"):
                await handle.result()
            await work(client)

    asyncio.run(opened())


def test_what_was_refunded_is_not_shipped_by_a_resume_unless_it_is_asked_for_anyway() -> None:
    async def work(client: Client) -> None:
        handle = client.handle(order, "o")
        with pytest.raises(Refused, match=r"completed refund \(position 2\).* Say `anyway`"):
            await handle.resume()
        assert calls == ["charge", "ship", "refund receipt 1"]
        await handle.resume(anyway=True)
        assert await handle.result() == ["receipt 1", "book shipped"]

    with_refunded(work)


def test_a_reset_to_before_the_charge_charges_again() -> None:
    async def work(client: Client) -> None:
        handle = client.handle(order, "o")
        await handle.reset("0")
        assert await handle.result() == ["receipt 2", "book shipped"]

    with_refunded(work)


@task
async def parse(text: str) -> int:
    return int(text)


@workflow
async def parsed(text: str) -> int:
    return await parse(text)


def test_edits_and_skips_are_checked_by_type_where_the_tasks_are_known() -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Client.embedded(parsed, parse) as client:
            handle = await client.start(parsed, "seven", id="p")
            with pytest.raises(RunFailed):
                await handle.result()
            for wrong in ("abc", None):
                with pytest.raises(SerializationError, match="skip 0: the result of parse"):
                    await handle.resume(skips={"0": wrong})
            with pytest.raises(SerializationError, match="edit 0: argument 'text' of parse cannot be read as str"):
                await handle.resume(edits={"0": [5]})
            with pytest.raises(SerializationError, match="edit 0: parse takes 1 argument, but 2 were given"):
                await handle.reset("0", edits={"0": ["5", "6"]})
            assert await handle.reset("0", edits={"0": ["5"]}) == 1
            assert await handle.result() == 5

    asyncio.run(main())


@workflow
async def translated(text: str) -> int:
    try:
        return await parse(text)
    except TaskFailed as error:
        raise ValueError("domain error") from error


@workflow
async def grouped(left: str, right: str) -> int:
    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(_parsed(text)) for text in (left, right)]
    return sum(part.result() for part in parts)


async def _parsed(text: str) -> int:
    return await parse(text)


@pytest.mark.parametrize("given", [{"edits": {"0": ["7"]}}, {"skips": {"0": 7}}])
def test_an_edit_or_skip_takes_back_a_failure_with_which_the_code_got_stuck(given: dict[str, Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Client.embedded(translated, parse) as client:
            handle = await client.start(translated, "seven", id="t")
            while (await handle.describe()).status != "stuck":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await handle.resume(**given)
            assert await handle.result() == 7

    asyncio.run(main())


def test_a_run_that_a_task_group_failed_is_resumed_with_edits() -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Client.embedded(grouped, parse) as client:
            handle = await client.start(grouped, "one", "two", id="g")
            with pytest.raises(RunFailed, match="TaskFailed: task parse failed: ValueError: invalid literal"):
                await handle.result()
            await handle.resume(edits={"0.0": ["1"], "1.0": ["2"]})
            assert await handle.result() == 3

    asyncio.run(main())
