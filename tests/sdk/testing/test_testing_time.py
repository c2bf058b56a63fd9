"""Async tasks and their mocks live by the environment's clock."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import threading
import time

import pytest

from perdure import TaskTimedOut, any_of, current_task, now, sleep, task, timer, workflow
from perdure.testing import NothingComes, WorkflowEnvironment

pytestmark = pytest.mark.asyncio

NEW_YEAR = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
PATIENCE = 45
"""Real seconds, on a busy machine; what is asked here takes none."""


@task
async def slow() -> int:
    raise OSError("not mocked")


@task(timeout=10)
async def limited() -> int:
    raise OSError("not mocked")


@task(heartbeat_timeout=30)
async def beating() -> int:
    raise OSError("not mocked")


@workflow
async def race() -> str:
    return "late" if await any_of(slow(), timer(60)) is None else "ok"


@workflow
async def impatient() -> str:
    try:
        async with asyncio.timeout(5):
            return f"{await limited()}"
    except TimeoutError:
        return "given up"


@workflow
async def patient() -> str:
    try:
        return f"{await limited()}"
    except TaskTimedOut:
        return "timed out"


@workflow
async def beaten() -> str:
    try:
        return f"{await beating()}"
    except TaskTimedOut:
        return "timed out"


@task(total_timeout=20)
async def whole() -> int:
    raise OSError("not mocked")


@workflow
async def bounded() -> str:
    try:
        return "late" if await any_of(whole(), timer(60)) is None else "ok"
    except TaskTimedOut:
        return f"timed out after {(now() - NEW_YEAR).total_seconds():.0f} s"


@workflow
async def plain() -> int:
    return await slow()


async def hang() -> int:
    await asyncio.Event().wait()
    return 1


async def test_a_mock_that_hangs_loses_a_race_against_a_timer() -> None:
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(race, start=NEW_YEAR) as env:
        env.mock(slow, hang)
        assert await env.client.execute(race) == "late"
        assert env.now() == NEW_YEAR + dt.timedelta(seconds=60)


@pytest.mark.parametrize(("seconds", "result"), [(59.999, "ok"), (60.002, "late"), (1e6, "late")])
async def test_a_mock_that_sleeps_is_ordered_with_the_timers_of_workflows(seconds: float, result: str) -> None:
    async def sleeping() -> int:
        await asyncio.sleep(seconds)
        return 1

    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(race, start=NEW_YEAR) as env:
        env.mock(slow, sleeping)
        assert await env.client.execute(race) == result
        assert env.now() == NEW_YEAR + dt.timedelta(seconds=min(seconds, 60))


async def test_the_shorter_of_two_time_outs_comes_first_and_reaches_the_mock() -> None:
    ended: list[str] = []

    async def canceled() -> int:
        try:
            return await hang()
        except asyncio.CancelledError:
            ended.append(env.now().isoformat())
            raise

    began = time.monotonic()
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(impatient, patient, start=NEW_YEAR) as env:
        env.mock(limited, canceled)
        assert await env.client.execute(impatient) == "given up"
        assert env.now() == NEW_YEAR + dt.timedelta(seconds=5)
        await env.idle()
        assert ended == ["2030-01-01T00:00:05+00:00"]
        assert await env.client.execute(patient) == "timed out"
        await env.idle()
        assert ended[1] == "2030-01-01T00:00:15+00:00"
    assert time.monotonic() - began < 10, "of the task's time-out nothing was real"


async def test_a_sleep_of_the_test_does_not_wait_for_that_of_a_mock() -> None:
    ended: list[float] = []

    async def sleeping() -> int:
        await asyncio.sleep(100)
        ended.append((env.now() - NEW_YEAR).total_seconds())
        return 7

    began = time.monotonic()
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(plain, start=NEW_YEAR) as env:
        env.mock(slow, sleeping)
        run = await env.client.start(plain)
        await env.sleep(99)
        assert ended == []
        await env.sleep(1)
        assert ended == [100]
        assert await run.result() == 7
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("interval", "result"), [(20, "1"), (31, "timed out")])
async def test_heartbeats_are_of_the_same_time(interval: int, result: str) -> None:
    async def beat() -> int:
        for _ in range(20):
            await asyncio.sleep(interval)
            current_task().heartbeat()
        return 1

    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(beaten, start=NEW_YEAR) as env:
        env.mock(beating, beat)
        assert await env.client.execute(beaten) == result


async def test_a_time_out_of_the_engines_comes_before_a_later_timer() -> None:
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(bounded, start=NEW_YEAR) as env:
        env.mock(whole, hang)
        assert await env.client.execute(bounded) == "timed out after 20 s"


async def test_who_hangs_is_told_when_nothing_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._testing.timekeeper.SILENT_LOOKS", 100)
    hangs = "task slow, whose mock has begun and waits for what never comes"
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(plain) as env:
        env.mock(slow, hang)
        with pytest.raises(NothingComes, match=f"of plain waits for {hangs}"):
            await env.client.execute(plain)
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment() as env:
        env.mock(slow, hang)
        with pytest.raises(NothingComes, match=hangs):
            await env.client.run(slow)


async def test_a_task_with_a_time_out_that_is_not_mocked_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._testing.timekeeper.SILENT_LOOKS", 100)
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(patient, impatient) as env:
        with pytest.raises(NothingComes, match=r"task limited, which is neither given nor mocked: env.mock\(limited"):
            await env.client.execute(patient)
        assert await env.client.execute(impatient) == "given up", "a time-out that comes earlier is not held up"
        run = await env.client.start(patient)
        await env.sleep(11)
        assert await run.result() == "timed out", "time passes where a test says so"


async def test_what_a_real_task_does_outside_takes_real_time() -> None:
    """Threads of the loop, sockets, and threads that nobody knows of."""

    @task
    async def outside() -> list[str]:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        for end in (here, there):
            end.setblocking(False)
        told = loop.create_future()
        threads = [
            threading.Timer(0.6, there.send, [b"socket"]),
            threading.Timer(0.7, loop.call_soon_threadsafe, [told.set_result, "thread"]),
        ]
        await asyncio.to_thread(time.sleep, 0.3)
        for thread in threads:
            thread.start()
        got = (await loop.sock_recv(here, 100)).decode()
        here.close()
        there.close()
        return [got, await told]

    @workflow
    async def working() -> str:
        done = await any_of(outside(), timer(60))
        return "late" if done is None else " ".join(done)

    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(working, outside) as env:
        assert await env.client.execute(working) == "socket thread"


async def test_a_task_in_a_thread_takes_real_time_and_no_time_out_comes_meanwhile() -> None:
    @task
    def blocking() -> int:
        time.sleep(0.3)
        return 1

    @workflow
    async def working() -> str:
        return "late" if await any_of(blocking(), timer(0.01)) is None else "ok"

    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(working, blocking) as env:
        assert await env.client.execute(working) == "ok"


async def test_a_mock_that_refuses_to_end_does_not_hold_up_the_end() -> None:
    async def stubborn() -> int:
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                continue

    before = set(threading.enumerate())
    async with asyncio.timeout(PATIENCE):
        async with WorkflowEnvironment(race) as env:
            env.mock(slow, stubborn)
            assert await env.client.execute(race) == "late"
    assert not [left for left in threading.enumerate() if left not in before and left.name == "perdure-tasks"]


async def test_two_mocks_that_sleep_end_in_their_order() -> None:
    order: list[int] = []

    @task
    async def nap(seconds: int) -> None: ...

    @workflow
    async def naps() -> None:
        await asyncio.gather(*(nap(seconds) for seconds in (300, 100, 200)), sleep(150))

    async def napping(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(naps, start=NEW_YEAR) as env:
        env.mock(nap, napping)
        await env.client.execute(naps)
        assert order == [100, 200, 300]
        assert env.now() == NEW_YEAR + dt.timedelta(seconds=300)
