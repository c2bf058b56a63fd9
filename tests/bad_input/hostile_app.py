"""Tasks and workflows that misbehave, and a neighbour that must not suffer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from perdure import Channel, TaskFailed, TaskTimedOut, channel, task, workflow


@task
async def double(number: int) -> int:
    return 2 * number


@workflow
async def neighbour(number: int) -> int:
    for _ in range(3):
        number = await double(number)
    return number


@task
async def give_unserialisable() -> Any:
    return threading.Lock()


@workflow
async def unserialisable_result() -> Any:
    return await give_unserialisable()


@workflow
async def unserialisable_argument() -> str:
    try:
        await take_anything(threading.Lock())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


@task
async def take_anything(value: Any) -> None:
    """Takes it."""


@task
async def give_megabytes(megabytes: int) -> str:
    return "x" * (megabytes * 1024 * 1024)


@task
async def give_back(value: str) -> str:
    return value


@workflow
async def passes_on(value: str) -> str:
    return await give_back.options(timeout=60)(value)


@workflow
async def receives() -> int:
    values: Channel[str] = channel("values", str)
    return len(await values.receive())


@workflow
async def huge_result(megabytes: int) -> int:
    return len(await give_megabytes(megabytes))


@task
async def block(pipe: str) -> str:
    Path(pipe).read_text()  # the mistake itself, until somebody writes to it
    return "done"


@workflow
async def blocked(pipe: str) -> str:
    return await block(pipe)


class Escape(BaseException):
    """What `except Exception` does not catch."""


@task
async def escape() -> None:
    raise Escape("over the wall")


@task
def leave() -> None:
    raise SystemExit(7)


@workflow
async def escaped(by_thread: bool) -> str:
    try:
        await (leave() if by_thread else escape())
    except TaskFailed as error:
        return f"{error}"
    return "completed"


@task(timeout=0.5)
async def never(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(timeout=0.5)
def never_in_a_thread(seconds: float) -> None:
    time.sleep(seconds)


@workflow
async def timed_out(by_thread: bool) -> str:
    try:
        await (never_in_a_thread(3600) if by_thread else never(3600))
    except TaskTimedOut as error:
        return f"timed out: {error}"
    return "completed"


@task
async def die(log: str) -> None:
    with Path(log).open("a") as file:  # noqa: ASYNC230 - it is about to die
        file.write(f"{os.getpid()}\n")
    os._exit(9)


@workflow
async def deadly(log: str) -> str:
    await die(log)
    return "completed"


@workflow
async def calls_unknown() -> str:
    return await unknown()


@task(name="known_here_only")
async def unknown() -> str:
    return "found"


@workflow
async def mistaken() -> int:
    return undefined_name  # type: ignore[name-defined, no-any-return]  # noqa: F821 - the mistake itself


@workflow
async def deadly_turn() -> None:
    os._exit(9)
