"""Workflows, clients and handles keep the exact parameters and results too."""

from __future__ import annotations

from typing import assert_type

from perdure import Client, Deferred, Handle, TaskHandle, query, task, update, workflow, workflow_of


@task
async def double(a: int) -> int:
    return 2 * a


@workflow
async def order(sku: str, quantity: int = 1) -> bytes:
    return sku.encode() * quantity


@workflow(name="nothing", timeout=60)
async def nothing() -> None: ...


@workflow
class Cart:
    async def run(self, owner: str) -> list[str]:
        return [owner]

    @query
    def count(self, kind: str) -> int:
        return len(kind)

    @update
    async def add(self, sku: str) -> float:
        return float(len(sku))


@workflow
class Stock:
    async def run(self, sku: str, quantity: int = 1, limit: float | None = None) -> bytes:
        return sku.encode() * quantity


async def children() -> None:
    assert_type(order("a"), Deferred[bytes])
    assert_type(await order("a", quantity=2), bytes)
    assert_type(order.options(id="o-1", close_policy="abandon")("a", 2), Deferred[bytes])
    assert_type(workflow_of(Cart)("Ada"), Deferred[list[str]])
    assert_type(nothing(), Deferred[None])
    order(1)  # E
    order("a", 1, 1)  # E
    order.options(close_policy="never")  # E
    workflow_of(Cart)()  # E


async def clients(client: Client) -> None:
    assert_type(await client.start(order, "a"), Handle[bytes])
    assert_type(await client.start(order, "a", quantity=2), Handle[bytes])
    assert_type(await client.start(order, "a", 2, id="o-1", tags=["x"]), Handle[bytes])
    assert_type(await client.start(order, "a", id="o-1", conflict="use-existing"), Handle[bytes])
    assert_type(await client.execute(order, "a", id="o-1", conflict="use-existing", reuse="never"), bytes)
    assert_type(await client.start(order.options(id="o-1"), sku="a"), Handle[bytes])
    assert_type(await client.start(nothing, id="n"), Handle[None])
    assert_type(await client.start(Cart, "Ada"), Handle[list[str]])
    assert_type(await client.start(Cart, "Ada", id="c-1"), Handle[list[str]])
    assert_type(await client.execute(order, "a"), bytes)
    assert_type(await client.execute(Cart, "Ada"), list[str])
    assert_type(await client.execute(Cart, "Ada", id="c-1"), list[str])
    assert_type(await client.execute(order, "a", id="o-1"), bytes)
    assert_type(await client.run(double, 2), int)
    assert_type(await client.start_task(double, 2), TaskHandle[int])
    assert_type(client.handle(order, "o-1"), Handle[bytes])
    assert_type(client.handle(Cart, "c-1"), Handle[list[str]])

    assert_type(await client.start(Stock, "a", id="s-1"), Handle[bytes])
    assert_type(await client.start(Stock, "a", 2, id="s-1"), Handle[bytes])
    assert_type(await client.start(Stock, "a", 2, 1.5, id="s-1"), Handle[bytes])
    assert_type(await client.execute(Stock, "a", 2, id="s-1"), bytes)
    assert_type(await client.start(workflow_of(Stock).options(id="s-1"), "a", quantity=2), Handle[bytes])

    await client.start(Stock, id="s-1")  # E
    await client.start(Stock, 1, id="s-1")  # E
    await client.start(Stock, "a", "2", id="s-1")  # E
    await client.execute(Stock, "a", 2, 1.5, 1, id="s-1")  # E
    assert_type(await client.start(order.options(id="o-1"), "a", quantity=2), Handle[bytes])
    await client.start(order, "a", quantity=2, id="o-1")  # E

    await client.start(order)  # E
    await client.start(order, 1)  # E
    await client.start(order, "a", "2")  # E
    await client.start(order, 1, id="o-1")  # E
    await client.start(order, "a", id=1)  # E
    await client.start(order, "a", conflict="never")  # E
    await client.start(order, "a", reuse="use-existing")  # E
    await client.start(Cart, 1)  # E
    await client.execute(order, "a", quantity="2")  # E
    await client.execute(Cart)  # E
    await client.run(double, "2")  # E
    await client.run(double)  # E


async def where_any_object_will_do(client: Client) -> None:
    print(await client.execute(order, "a", id="o-1"), await client.execute(Cart, "Ada", id="c-1"))
    print(await client.start(order, "a", id="o-1"), await client.start_task(double, 2, id="t-1"))
    _given: object = await client.execute(order, "a", 2, id="o-1", tags=["x"])
    _wider: bytes | None = await client.execute(order, "a", id="o-1")

    print(await client.execute(order, 1, id="o-1"))  # E
    print(await client.execute(order, "a", nosuch=1))  # E
    _narrower: int = await client.execute(order, "a", id="o-1")  # E
    await client.execute(Cart.run, Cart(), "Ada")  # E


async def handles(client: Client) -> None:
    cart = await client.start(Cart, "Ada")
    assert_type(await cart.result(timeout=1), list[str])
    assert_type(await cart.query(Cart.count, "fruit"), int)
    assert_type(await cart.update(Cart.add, "pear"), float)

    await cart.query(Cart.count)  # E
    await cart.query(Cart.count, 1)  # E
    await cart.update(Cart.add, 1)  # E
    await cart.update(Cart.count, "fruit")  # E
    await cart.result(timeout="1")  # E
