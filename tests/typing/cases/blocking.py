"""The blocking client has the exact types of the async one."""

from __future__ import annotations

from typing import Any, assert_type

from perdure import Channel, Client, query, task, update, workflow
from perdure.sync import SyncClient, SyncHandle, SyncTaskHandle


@task
async def double(a: int) -> int:
    return 2 * a


@workflow
async def order(sku: str, quantity: int = 1) -> bytes:
    return sku.encode() * quantity


@workflow
class Cart:
    skus: Channel[str] = Channel()

    async def run(self, owner: str) -> list[str]:
        return [owner]

    @query
    def count(self, kind: str) -> int:
        return len(kind)

    @update
    async def add(self, sku: str) -> float:
        return float(len(sku))


def clients(s: SyncClient) -> None:
    assert_type(s.start(order, "a", quantity=2), SyncHandle[bytes])
    assert_type(s.start(order, "a", 2, id="o-1", wait="sent"), SyncHandle[bytes])
    assert_type(s.start(Cart, "Ada", id="c-1"), SyncHandle[list[str]])
    assert_type(s.start("order", "a", id="o-1"), SyncHandle[Any])
    assert_type(s.execute(order, "a"), bytes)
    assert_type(s.execute(Cart, "Ada", id="c-1"), list[str])
    assert_type(s.run(double, 2), int)
    assert_type(s.start_task(double, 2), SyncTaskHandle[int])
    assert_type(s.handle(order, "o-1"), SyncHandle[bytes])
    assert_type(s.handle("o-1"), SyncHandle[Any])
    assert_type(s.task("t-1"), SyncTaskHandle[Any])
    assert_type(s.list(limit=5).cursor, str | None)
    assert_type(s.counts(), dict[str, dict[str, int]])
    print(s.execute(order, "a", id="o-1"))

    s.execute(order, 3)  # E
    s.execute(order)  # E
    s.start("order", "x", "y", bogus=1)  # E
    s.start(order, "x", bogus=1)  # E
    s.run(double, "2")  # E
    s.list(where="x")  # E
    s.nosuch()  # E
    await_it: int = s.execute(order, "a")  # E
    print(await_it)


def handles(client: Client) -> None:
    with client.sync as s:
        assert_type(s, SyncClient)
        cart = s.start(Cart, "Ada")
        assert_type(cart.id, str)
        assert_type(cart.result(timeout=1), list[str])
        assert_type(cart.query(Cart.count, "fruit"), int)
        assert_type(cart.update(Cart.add, "pear"), float)
        assert_type(cart.describe().status == "running", bool)
        assert_type(cart.reset("2"), int)
        cart.signal(Cart.skus, "pear")
        cart.cancel("no", actor="Ada")
        assert_type(s.start_task(double, 2).result(), int)

        cart.query(Cart.count, 1)  # E
        cart.update(Cart.count, "fruit")  # E
        cart.signal(Cart.skus, 1)  # E
        cart.result(timeout="1")  # E
        cart.nosuch()  # E
