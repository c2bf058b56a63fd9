"""The tasks and workflows that the simulated workers run."""

from __future__ import annotations

from perdure import Registry, current_task, task, workflow
from tests.simulation.ledger import Ledger


class Stage:
    """Where user code tells that it runs. One schedule at a time uses it."""

    ledger: Ledger


def appear() -> None:
    Stage.ledger.executed(current_task().attempt_id)


@task
async def add_one(number: int) -> int:
    appear()
    return number + 1


@workflow
async def hello(number: int) -> int:
    return await add_one(number)


def registry() -> Registry:
    return Registry([add_one, hello])
