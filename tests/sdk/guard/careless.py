"""Workflow code with every kind of carelessness, to be found by its reader; none of it ever runs."""

# Wrong on purpose.
# ruff: noqa: ASYNC210, ASYNC221, ASYNC230, ASYNC251, C416, PLC0208, PLW0108

from __future__ import annotations

import asyncio
import datetime
import os
import random
import secrets
import subprocess
import threading
import time
import uuid
from datetime import date
from random import choice as pick
from time import time as clock
from typing import Any

from perdure import all_of, branch, inline, now, sleep, task, workflow

SHARED = 0


@task
async def outside() -> float:
    return time.time() + random.random()  # a task may


@task
async def double(number: int) -> int:
    return 2 * number


def helper() -> float:
    return deeper()


def deeper() -> float:
    return time.monotonic()  # helper


class Tool:
    def use(self) -> str:
        return str(uuid.uuid4())  # nobody can tell whose method is called


@workflow
async def careless(names: list[str]) -> Any:
    a = time.time()  # time.time()
    b = clock()  # time.time()
    c = datetime.datetime.now()  # datetime.now()
    d = date.today()  # date.today()
    e = random.random()  # random.random()
    f = pick(names)  # random.choice()
    g = uuid.uuid4()  # uuid.uuid4()
    h = secrets.token_hex(4)  # secrets.token_hex()
    i = os.urandom(4)  # os.urandom()
    with open("file") as file:  # open()
        j = file.read()
    threading.Thread(target=print).start()  # threading.Thread()
    subprocess.run(["true"], check=True)  # subprocess.run()
    time.sleep(1)  # time.sleep()
    await asyncio.to_thread(print)  # asyncio.to_thread()
    import socket

    k = socket.create_connection(("127.0.0.1", 1))  # socket.create_connection()
    import requests as web  # type: ignore[import-untyped,unused-ignore]

    m = web.get("http://127.0.0.1")  # web.get()
    o = os.listdir(".")  # os.listdir()

    async def inner() -> None:
        time.perf_counter()  # time.perf_counter()

    await branch(inner())
    p = helper()
    q = [id(a) for _ in names]  # id()
    return [a, b, c, d, e, f, g, h, i, j, k, m, o, p, q]


@workflow
class Careless:
    def __init__(self) -> None:
        self.began = time.time()  # time.time()

    async def run(self) -> None:
        await self.later()

    async def later(self) -> None:
        random.shuffle([1, 2])  # random.shuffle()


@workflow
async def doubtful(names: list[str]) -> list[str]:
    global SHARED
    SHARED += 1
    found: list[str] = []
    for name in frozenset(names):
        found.append(name)
    chosen = set(names)
    found += [name for name in chosen]
    found += list(chosen | {"c"})
    found += [*chosen]
    total = sum([await double(len(name)) for name in chosen])
    total += sum(await all_of(double(len(name)) for name in {"a", "b"}))
    total += await double.fn(total)
    try:
        await sleep(1)
    except BaseException:
        found.append(f"swallowed {total}")
    return found


@workflow
async def careful(names: list[str], time: float) -> list[str]:
    """Nothing is wrong here, though the names of it are those of others."""
    measured = inline(lambda: clock())
    random = names
    first = random[0] + str(time + measured)
    chosen = set(names)
    if first in chosen:
        chosen.discard(first)
    total = sum(len(name) for name in chosen)
    longest = max(chosen, default="")
    unique = {name.upper() for name in chosen}
    ordered = [name for name in sorted(chosen)]
    try:
        await sleep(total)
    except BaseException:
        ordered.append("noted")
        raise
    except_for = Tool()
    await outside()
    return [*ordered, longest, *sorted(unique), f"{now():%H}", except_for.use()]
