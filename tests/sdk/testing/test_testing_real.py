"""Async tasks that are not mocked: their sleeps cost nothing, and no time passes while they do real work."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from perdure import Retry, TaskFailed, TaskTimedOut, any_of, current_task, sleep, task, timer, workflow
from perdure._testing import virtual
from perdure.testing import WorkflowEnvironment

pytestmark = pytest.mark.asyncio

NEW_YEAR = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
PATIENCE = 45
"""Real seconds, on a busy machine."""
HOUR = 3600


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a rest of real time waits for ever: what passes has waited for none."""
    monkeypatch.setattr(virtual, "REST_SECONDS", math.inf)
    monkeypatch.setattr(virtual, "THREAD_SECONDS", math.inf)


@asynccontextmanager
async def opened(*objects: object) -> AsyncIterator[WorkflowEnvironment]:
    async with asyncio.timeout(PATIENCE), WorkflowEnvironment(*objects, start=NEW_YEAR) as env:
        yield env


@task
async def nap(hours: int) -> int:
    await asyncio.sleep(hours * HOUR)
    return hours


@task(heartbeat_timeout=30)
async def beat(times: int) -> int:
    for _ in range(times):
        await asyncio.sleep(20)
        current_task().heartbeat()
    return times


@task(timeout=100)
async def limited() -> int:
    await asyncio.sleep(1000)
    return 1


@task(retry=Retry(attempts=4, initial=HOUR, factor=2, max=dt.timedelta(days=1), jitter=0))
async def flaky() -> int:
    await asyncio.sleep(HOUR)
    raise ConnectionError("nobody there")


@task
async def busy_inside() -> int:
    """All the ways in which asyncio tasks wait for each other."""
    some, lock = asyncio.Semaphore(2), asyncio.Lock()

    async def part() -> int:
        async with some, asyncio.timeout(10 * HOUR):
            await asyncio.sleep(HOUR)
        async with lock:
            await asyncio.sleep(HOUR)
        return 1

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(part())
    await asyncio.gather(part(), part())
    await asyncio.wait([asyncio.create_task(part()), asyncio.create_task(part())], return_when="FIRST_COMPLETED")
    for done in asyncio.as_completed([part(), part()]):
        await done
    return await asyncio.wait_for(asyncio.shield(part()), 100 * HOUR)


@workflow
async def in_sequence(times: int) -> int:
    return sum([await nap(1) for _ in range(times)])


@workflow
async def side_by_side(times: int) -> int:
    return sum(await asyncio.gather(*(nap(hours) for hours in range(1, times + 1))))


@workflow
async def beating() -> int:
    return await beat(20)


@workflow
async def too_long() -> str:
    try:
        return str(await limited())
    except TaskTimedOut:
        return "timed out"


@workflow
async def in_vain() -> str:
    try:
        return str(await flaky())
    except TaskFailed as error:
        return str(error.__cause__)


@workflow
async def yearly() -> int:
    for _ in range(12):
        await sleep(30 * 24 * HOUR)
        await nap(24)
    return 12


@workflow
async def inside() -> int:
    return await busy_inside()


APP = (in_sequence, side_by_side, beating, too_long, in_vain, yearly, inside, nap, beat, limited, flaky, busy_inside)


@pytest.mark.usefixtures("no_rest")
async def test_what_waits_for_time_alone_costs_no_real_time() -> None:
    async with opened(*APP) as env:

        async def hours(run: Awaitable[object], result: object) -> float:
            began = env.now()
            assert await run == result
            return (env.now() - began) / dt.timedelta(hours=1)

        execute = env.client.execute
        assert await hours(execute(in_sequence, 10), 10) == 10
        assert await hours(execute(side_by_side, 10), 55) == 10
        assert await hours(execute(beating), 20) == 400 / HOUR
        assert await hours(execute(too_long), "timed out") == 100 / HOUR
        assert await hours(execute(in_vain), "ConnectionError: nobody there") == 4 + 1 + 2 + 4
        assert await hours(execute(yearly), 12) == 12 * 31 * 24
        await execute(inside)
        run = await env.client.start(in_sequence, 2)
        await env.sleep(2 * HOUR)
        assert (await run.describe()).status == "completed"


@pytest.fixture
def answering() -> Iterator[Callable[[float], tuple[str, int]]]:
    """A server that greets at once, and says more some real seconds later. Its thread runs before the environment."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def serve(pause: float) -> None:
            connection, _ = listening.accept()
            held.append(connection)
            connection.sendall(b"hello\n")
            if not over.wait(pause):
                connection.sendall(b"more\n")

        def start(pause: float) -> tuple[str, int]:
            threading.Thread(target=serve, args=[pause], daemon=True).start()
            host, port = listening.getsockname()
            return host, port

        over = threading.Event()
        yield start
        over.set()
        for connection in held:
            connection.close()


async def test_no_time_passes_while_a_server_is_waited_for(answering: Callable[[float], tuple[str, int]]) -> None:
    host, port = answering(0.7)

    @task
    async def talk() -> str:
        reader, writer = await asyncio.open_connection(host, port)
        await reader.readline()
        line, _ = await asyncio.gather(reader.readline(), asyncio.sleep(30))
        writer.close()
        return line.decode().strip()

    @workflow
    async def talking() -> str:
        return await any_of(talk(), timer(60)) or "late"

    async with opened(talking, talk) as env:
        assert await env.client.execute(talking) == "more"
        assert env.now() == NEW_YEAR + dt.timedelta(seconds=30), "the sleep beside it, after the answer"


async def test_a_connection_that_is_kept_open_does_not_hold_up_time(
    answering: Callable[[float], tuple[str, int]],
) -> None:
    host, port = answering(1000)

    @task
    async def polite() -> str:
        reader, writer = await asyncio.open_connection(host, port)
        line = await reader.readline()
        await asyncio.sleep(HOUR)
        writer.close()
        return line.decode().strip()

    @workflow
    async def talking() -> str:
        return await any_of(polite(), timer(2 * HOUR)) or "late"

    async with opened(talking, polite) as env:
        assert await env.client.execute(talking) == "hello"


async def test_a_thread_that_tells_a_future_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So do drivers of databases work, whose threads no event loop knows."""
    monkeypatch.setattr(virtual, "REST_SECONDS", 0.0)

    @task
    async def query() -> str:
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        threading.Timer(0.7, loop.call_soon_threadsafe, [told.set_result, "row"]).start()
        row: str = await told
        return row

    @workflow
    async def querying() -> str:
        return await any_of(query(), timer(60)) or "late"

    async with opened(querying, query) as env:
        assert await env.client.execute(querying) == "row"
        assert env.now() == NEW_YEAR


@pytest.mark.parametrize("how", ["an event", "a queue", "asked now and then"])
async def test_a_moment_is_left_to_threads_that_nobody_knows_of(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "REST_SECONDS", 5.0)

    @task
    async def working() -> str:
        loop, event, queue = asyncio.get_running_loop(), asyncio.Event(), asyncio.Queue[int]()
        tells: dict[str, list[object]] = {"an event": [event.set], "a queue": [queue.put_nowait, 1]}
        helper = threading.Timer(0.5, loop.call_soon_threadsafe, tells.get(how, [str]))
        helper.start()
        if how == "an event":
            await event.wait()
        elif how == "a queue":
            await queue.get()
        else:
            await asyncio.sleep(30)
        return f"{how}, {'still' if helper.is_alive() else 'done'}"

    @workflow
    async def waiting() -> str:
        return await any_of(working(), timer(60)) or "late"

    async with opened(waiting, working) as env:
        assert (await env.client.execute(waiting)).startswith(how)


@pytest.mark.parametrize("how", ["of its own", "of the task", "a thread"])
async def test_who_waits_for_a_server_that_never_answers_is_timed_out_by_real_time(
    how: str, answering: Callable[[float], tuple[str, int]]
) -> None:
    host, port = answering(1000)
    over = threading.Event()

    async def wait() -> str:
        if how == "a thread":
            await asyncio.to_thread(over.wait, 20)
        reader, writer = await asyncio.open_connection(host, port)
        try:
            return (await reader.read(100) + await reader.read(100)).decode()
        finally:
            writer.close()

    @task(timeout=1 if how == "of the task" else HOUR)
    async def patient() -> str:
        try:
            async with asyncio.timeout(HOUR if how == "of the task" else 1):
                return await wait()
        except TimeoutError:
            return "given up"

    @workflow
    async def waiting() -> str:
        early = timer(0.5)
        try:
            result = await any_of(patient(), timer(2 * HOUR)) or "late"
        except TaskTimedOut:
            result = "timed out"
        return result if early.done() else "too early"

    async with opened(waiting, patient) as env:
        began = time.monotonic()
        assert await env.client.execute(waiting) == ("timed out" if how == "of the task" else "given up")
        assert env.now() == NEW_YEAR + dt.timedelta(seconds=1)
        assert time.monotonic() - began > 0.9
        over.set()
