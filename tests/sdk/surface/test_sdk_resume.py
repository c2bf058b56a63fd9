"""Resume of a run that has made up for what it had done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import (
    ChildFailed,
    Client,
    Refused,
    Retry,
    RunFailed,
    SerializationError,
    TaskFailed,
    WorkflowError,
    all_of,
    task,
    workflow,
)

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


class OrderFailed(WorkflowError):
    """As most workflows tell their callers what went wrong."""


@workflow
async def raised_from(item: str) -> list[str]:
    try:
        return [await ship(item)]
    except TaskFailed as error:
        raise OrderFailed("not shipped") from error


@workflow
async def raised_while(item: str) -> list[str]:
    try:
        return [await ship(item)]
    except TaskFailed:
        raise OrderFailed("not shipped")  # noqa: B904  # many write it so


@workflow
async def raised_from_group(item: str) -> list[str]:
    try:
        async with asyncio.TaskGroup() as group:
            shipped = group.create_task(_shipped(item))
        return [shipped.result()]
    except* TaskFailed as errors:
        raise OrderFailed("not shipped") from errors


async def _shipped(item: str) -> str:
    return await ship(item)


@workflow
async def raised_by_parent(item: str) -> list[str]:
    try:
        return [f"by child: {await order_of_child(item)}"]
    except ChildFailed as error:
        await refund("the child's")
        raise OrderFailed("no child") from error


@workflow
async def order_of_child(item: str) -> str:
    return await ship(item)


@pytest.mark.parametrize("ordered", [raised_from, raised_while, raised_from_group])
def test_a_run_that_raised_its_own_error_for_a_failure_goes_back_to_before_the_failure(ordered: Any) -> None:
    async def main() -> None:
        calls.clear()
        async with asyncio.timeout(60), Client.embedded(ordered, ship) as client:
            handle = await client.start(ordered, "book", id="o")
            with pytest.raises(RunFailed, match="not shipped"):
                await handle.result()
            await handle.resume()
            assert await handle.result() == ["book shipped"]
            assert calls == ["ship", "ship"]

    asyncio.run(main())


async def _listed(client: Client, name: str) -> str:
    """The id of a run of that name; on a cluster, lists are behind."""
    while not (found := [run.workflow_id for run in (await client.list()).runs if run.name == name]):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return found[0]


def test_a_parent_that_made_up_for_its_childs_failure_and_raised_its_own_error_resumes_when_asked() -> None:
    async def main() -> None:
        calls.clear()
        objects = (raised_by_parent, order_of_child, ship, refund)
        async with asyncio.timeout(60), Client.embedded(*objects) as client:
            handle = await client.start(raised_by_parent, "book", id="o")
            with pytest.raises(RunFailed, match="no child"):
                await handle.result()
            child = await _listed(client, "order_of_child")
            await client.handle(order_of_child, child).resume()
            assert await client.handle(order_of_child, child).result() == "book shipped"
            assert (await handle.describe()).status == "failed"
            with pytest.raises(Refused, match=r"completed refund"):
                await handle.resume()
            await handle.resume(anyway=True)
            assert await handle.result() == ["by child: book shipped"]

    asyncio.run(main())


van_is_there = asyncio.Event()


@task(retry=Retry(attempts=1))
async def send_part(number: int) -> str:
    if not van_is_there.is_set():
        raise ConnectionError("no van")
    await asyncio.sleep(0.3)
    return f"part {number} sent"


@task
async def undo() -> None:
    await asyncio.sleep(0.4)


@workflow
async def part(number: int) -> str:
    if number:
        await asyncio.sleep(0.1)
    return await send_part(number)


@workflow
async def parts() -> str:
    try:
        await all_of(*(part.options(id=f"part-{number}")(number) for number in range(2)))
    except ChildFailed:
        await undo()
        return "undone"
    return "sent"


def test_a_child_that_failed_while_its_parent_undid_its_work_is_not_canceled_once_it_is_resumed() -> None:
    async def main() -> None:
        van_is_there.clear()
        async with asyncio.timeout(60), Client.embedded(parts, part, send_part, undo) as client:
            parent = await client.start(parts, id="parts")
            assert await parent.result() == "undone"
            van_is_there.set()
            child = client.handle(part, "part-1")
            await child.resume()
            assert await child.result() == "part 1 sent"
            described = await parent.describe()
            assert (described.status, described.generation) == ("completed", 0)

    asyncio.run(main())


def test_a_reset_to_before_the_charge_charges_again() -> None:
    async def work(client: Client) -> None:
        handle = client.handle(order, "o")
        with pytest.raises(Refused, match=r"after position 0 the run completed refund \(position 2\).* Say `anyway`"):
            await handle.reset("0")
        await handle.reset("0", anyway=True)
        assert await handle.result() == ["receipt 2", "book shipped"]

    with_refunded(work)


def test_what_was_refunded_is_not_shipped_by_a_reset_unless_it_is_asked_for_anyway() -> None:
    async def work(client: Client) -> None:
        handle = client.handle(order, "o")
        with pytest.raises(Refused, match=r"after position 1 the run completed refund \(position 2\)"):
            await handle.reset("1")
        assert calls == ["charge", "ship", "refund receipt 1"]
        assert (await handle.describe()).generation == 0

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
