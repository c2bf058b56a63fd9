"""What clients do in a schedule, and what must come of it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from perdure import convert
from perdure_schemas.common import Failure
from perdure_schemas.messages import RunResult
from tests.simulation import app
from tests.simulation.client import Client

Script = Callable[[Client, random.Random], Awaitable[None]]


async def hello(client: Client, rng: random.Random) -> None:
    run = await client.start(app.hello, 41, id="hello", wait=rng.random() < 0.5)
    ended = await client.result(run)
    completed(ended, 42)


def completed(ended: RunResult, *allowed: object) -> None:
    """It completed with one of these values, or a delivery died so often that it was given up."""
    failure = ended.failure
    if ended.status == "failed" and failure is not None and "WorkerDied" in describe(failure):
        return
    expect(ended.status, "completed")
    expect(convert.decode(ended.result), *allowed)


def describe(failure: Failure | None) -> str:
    """Every error of the chain."""
    return "" if failure is None else f"{failure.name}: {failure.message} {describe(failure.cause)}".strip()


def expect(found: object, *allowed: object) -> None:
    if found not in allowed:
        raise AssertionError(f"{found!r}, expected {' or '.join(map(repr, allowed))}")


WORKLOADS: dict[str, Script] = {"hello": hello}
