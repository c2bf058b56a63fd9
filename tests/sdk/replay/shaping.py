"""How shapes are declared, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perdure import sleep, task, workflow

EVERY: dict[str, Shape] = {}


@dataclass(frozen=True)
class Shape:
    workflow: Any
    world: dict[str, Any]


def shape(**world: Any) -> Callable[[Any], Any]:
    """Register a workflow with what its world does beside answering commands."""

    def register(fn: Any) -> Any:
        EVERY[fn.__name__] = Shape(workflow(fn), world)
        return fn

    return register


@task
async def echo(value: int) -> int:
    return value


@task
async def says(value: int) -> str:
    """Its world answers with a number."""
    return str(value)


@workflow
async def child(value: int) -> int:
    return value


async def doubled(value: int) -> int:
    return await echo(await echo(value))


async def mark(values: Any) -> None:
    """Make an order visible in the history."""
    for value in values:
        await echo(value)


async def cleans_up(n: int) -> None:
    """Waits for long, and leaves a trace when it is canceled."""
    try:
        await sleep(1000)
    finally:
        await echo(n)
