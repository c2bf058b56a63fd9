"""Tasks keep the exact parameters and results of their functions."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol, assert_type

from perdure import Deferred, Retry, service, service_stub, task


@task
async def none() -> None:
    pass


@task
async def one(a: int) -> str:
    return str(a)


@task(retry=Retry(attempts=3), timeout=timedelta(seconds=5))
async def four(a: int, b: str, c: bytes = b"", *, d: float = 0.0) -> list[int]:
    return [a]


@task(mode="process")
def heavy(pixels: bytes, width: int) -> bytes:
    return pixels[:width]


@task
def light(a: int) -> int:
    return a


@service
class Payments(Protocol):
    async def charge(self, order: str, cents: int) -> str: ...


class Bank(Payments):
    async def charge(self, order: str, cents: int) -> str:
        return order


payments = service_stub(Payments)


async def workflow_code() -> None:
    assert_type(none(), Deferred[None])
    assert_type(one(1), Deferred[str])
    assert_type(await one(1), str)
    assert_type(four(1, "b"), Deferred[list[int]])
    assert_type(four(1, b="b", c=b"c", d=1.5), Deferred[list[int]])
    assert_type(heavy(b"", 1), Deferred[bytes])
    assert_type(light.options(timeout=1)(2), Deferred[int])
    assert_type(four.options(retry=Retry())(1, "b"), Deferred[list[int]])
    assert_type(await one.fn(1), str)
    assert_type(heavy.fn(b"", 2), bytes)
    assert_type(await (one(1) & light(2)), tuple[str, int])
    assert_type(await (one(1) | light(2)), str | int)
    assert_type(await payments.charge("o-1", 500), str)

    none(1)  # E
    one()  # E
    one("1")  # E
    four(1)  # E
    four(1, "b", e=1)  # E
    four(1, "b", b"", 1.0)  # E
    heavy("", 1)  # E
    light.options(timeout="1")  # E
    light.options(timeout=1)("2")  # E
    await one.fn("1")  # E
    await payments.charge("o-1")  # E
    await payments.charge("o-1", "500")  # E
    await payments.refund("o-1")  # E
