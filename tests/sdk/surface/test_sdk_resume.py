"""Resume of a run that has made up for what it had done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from perdure import Client, Refused, Retry, RunFailed, TaskFailed, task, workflow

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
        async with asyncio.timeout(20), Client.embedded(order, charge, ship, refund) as client:
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
