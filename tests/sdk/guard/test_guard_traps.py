"""The nets that watch: what a workflow does at run time, hidden where no reader sees it."""

# ruff: noqa: PLW0108, SIM115  # the traps replace functions, so each must be looked up when it is called

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Client, inline, logger, now, query, sleep, task, update, workflow
from perdure._replay.guard import install
from perdure.testing import RunStuck, WorkflowEnvironment

pytestmark = pytest.mark.asyncio

DEEDS: dict[str, Callable[[], object]] = {
    "time.time()": lambda: time.time(),
    "time.monotonic()": lambda: time.monotonic(),
    "time.perf_counter()": lambda: time.perf_counter(),
    "time.sleep()": lambda: time.sleep(0),
    "random.random()": lambda: random.random(),
    "random.shuffle()": lambda: random.shuffle([1, 2]),
    "uuid.uuid4()": lambda: uuid.uuid4(),
    "uuid.uuid1()": lambda: uuid.uuid1(),
    "os.urandom()": lambda: os.urandom(1),
    "secrets.token_hex()": lambda: secrets.token_hex(1),
    "threading.Thread.start()": lambda: threading.Thread(target=print).start(),
    "open('nowhere')": lambda: open("nowhere"),
    "os.listdir()": lambda: os.listdir("."),
    "socket.__new__()": lambda: socket.socket(),
    "subprocess.Popen()": lambda: subprocess.run(["true"], check=True),
    "socket.getaddrinfo()": lambda: socket.getaddrinfo("127.0.0.1", 1),
}
HARMLESS: dict[str, Callable[[], object]] = {
    "a log line": lambda: logger.info("here"),
    "a plain log line": lambda: logging.getLogger("somewhere").warning("here"),
    "an import": lambda: __import__("colorsys"),
    "a time zone": lambda: zoneinfo.ZoneInfo.no_cache("Europe/Paris"),
    "a seeded generator": lambda: random.Random(7).random(),
    "a traceback": traceback.format_stack,
    "the time of the run": lambda: now(),
    "inline": lambda: inline(lambda: time.time()),
    "inline with a file": lambda: inline(lambda: len(Path(__file__).read_bytes())),
}


@workflow
async def doing(deed: str) -> str:
    (DEEDS.get(deed) or HARMLESS[deed])()
    return "done"


@workflow
async def swallowing(deed: str) -> str:
    try:
        DEEDS[deed]()
    except Exception:
        await sleep(1)
    return "done"


@pytest.mark.parametrize("deed", DEEDS)
async def test_what_would_differ_in_replay_stops_the_run_with_its_line(deed: str) -> None:
    """Row E-30."""
    async with asyncio.timeout(60), WorkflowEnvironment(doing) as env:
        with pytest.raises(RunStuck) as raised:
            await env.client.execute(doing, deed)
    message = str(raised.value)
    assert f"{Path(__file__).name}:" in message
    assert f"{deed} in a workflow comes out differently in replay" in message
    assert "NonDeterminism" in message


@pytest.mark.parametrize("deed", HARMLESS)
async def test_what_does_not_differ_passes(deed: str) -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(doing) as env:
        assert await env.client.execute(doing, deed) == "done"


async def test_a_swallowed_error_counts_all_the_same() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(swallowing) as env:
        with pytest.raises(RunStuck, match=r"random\.random\(\)"):
            await env.client.execute(swallowing, "random.random()")


@workflow
class Talkative:
    async def run(self) -> None:
        await sleep(3600)

    @query
    def careless(self, deed: str) -> str:
        DEEDS[deed]()
        return "done"

    @update
    async def change(self, deed: str) -> str:
        DEEDS[deed]()
        return "done"


async def test_queries_are_watched_too() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(Talkative) as env:
        run = await env.client.start(Talkative)
        with pytest.raises(Exception, match=r"time\.time\(\) in a workflow"):
            await run.query(Talkative.careless, "time.time()")


@task
async def outside(deed: str) -> str:
    DEEDS[deed]()
    return "done"


@task
def outside_in_a_thread(deed: str) -> str:
    DEEDS[deed]()
    return "done"


@pytest.mark.parametrize("deed", ["time.time()", "random.random()", "uuid.uuid4()", "os.listdir()", "time.sleep()"])
async def test_tasks_and_everybody_else_may_do_all_of_it(deed: str) -> None:
    async with asyncio.timeout(60), Client.embedded(outside, outside_in_a_thread) as client:
        assert await client.run(outside, deed) == "done"
        assert await client.run(outside_in_a_thread, deed) == "done"
        DEEDS[deed]()


@workflow
async def dated() -> str:
    moments: Any = dt.datetime
    return str(moments.now())


async def test_a_call_of_datetime_now_is_seen_where_it_is_made() -> None:
    """By `sys.monitoring`, which came with Python 3.12; before, only the reader sees it, and here it does not."""
    async with asyncio.timeout(60), WorkflowEnvironment(dated) as env:
        if sys.version_info >= (3, 12):
            with pytest.raises(RunStuck, match=r"datetime\.now\(\)"):
                await env.client.execute(dated)
        else:
            assert await env.client.execute(dated)


async def test_with_warn_it_is_told_once_and_passes(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(doing) as env:
        install("warn", [])
        try:
            assert await env.client.execute(doing, "time.time()") == "done"
            assert await env.client.execute(doing, "time.time()") == "done"
        finally:
            install("error", [])
    assert [r.name for r in caplog.records].count("perdure.guard") == 1
    async with asyncio.timeout(60), WorkflowEnvironment(doing) as env:
        install("off", [])
        try:
            assert await env.client.execute(doing, "random.random()") == "done"
        finally:
            install("error", [])


async def test_replaced_functions_are_what_they_were() -> None:
    async with WorkflowEnvironment(doing):
        pass
    assert time.time.__name__ == "time"
    assert abs(time.time() - dt.datetime.now().timestamp()) < 5
    random.seed(7)
    assert random.random() == random.Random(7).random()
    assert uuid.uuid4().version == 4
