"""One turn that asks for very many tasks. Each execution leaves a line in a file."""

from __future__ import annotations

import os

from perdure import all_of, task, workflow

EXECUTED = "FAN_OUT_EXECUTED"
"""Environment variable: the file."""


def _leave_mark(number: int) -> None:
    with open(os.environ[EXECUTED], "ab", buffering=0) as executed:
        executed.write(f"{number}\n".encode())


@task
async def plus_one(number: int) -> int:
    _leave_mark(number)
    return number + 1


@workflow
async def fan(width: int) -> int:
    return sum(await all_of(*[plus_one(number) for number in range(width)]))
