"""Compensation and resume: what was done is undone when the order cannot be kept, and a failure that is nobody's
fault is repaired and resumed, without doing again what succeeded.

Run it: python examples/saga.py
"""

from __future__ import annotations

import asyncio

from perdure import Client, RunFailed, TaskFailed, task, workflow

JOURNAL: list[str] = []
"""What the services did; a real one would be a bank and a warehouse."""
CARRIER = {"open": False}


class OutOfStock(Exception):
    """Trying again would not help."""


@task
async def charge(order: str, cents: int) -> str:
    JOURNAL.append(f"charge {order} {cents}")
    return f"receipt-{order}"


@task
async def refund(receipt: str) -> None:
    JOURNAL.append(f"refund {receipt}")


@task
async def reserve(order: str, sku: str) -> None:
    if sku == "unicorn":
        raise OutOfStock(f"no {sku} left")
    JOURNAL.append(f"reserve {order} {sku}")


@task
async def ship(order: str) -> str:
    if not CARRIER["open"]:
        raise ConnectionError("the carrier does not answer")
    JOURNAL.append(f"ship {order}")
    return f"parcel-{order}"


@workflow
async def fulfil(order: str, sku: str, cents: int) -> str:
    receipt = await charge(order, cents)
    try:
        await reserve(order, sku)
    except TaskFailed:
        await refund(receipt)
        return "refunded"
    return await ship(order)


async def main() -> None:
    async with Client.embedded(charge, refund, reserve, ship, fulfil) as client:
        print("a unicorn:", await client.execute(fulfil, "o-1", "unicorn", 900))

        run = await client.start(fulfil, "o-2", "lamp", 500, id="order-2")
        try:
            await run.result()
        except RunFailed as error:
            print("a lamp:", error)

        CARRIER["open"] = True  # somebody repairs it
        await run.resume(reason="the carrier is back")
        print("after resume:", await run.result())
        print(*JOURNAL, sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
