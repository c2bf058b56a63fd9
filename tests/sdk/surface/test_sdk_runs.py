"""The client with the real workflow engine and a real worker, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    AlreadyStarted,
    Client,
    Handle,
    NamespaceNotServed,
    QueryFailed,
    Refused,
    Registry,
    RunCanceled,
    RunFailed,
    RunNotFound,
    RunTerminated,
    Unavailable,
    UpdateFailed,
    WorkflowError,
    query,
    task,
    update,
    workflow,
    workflow_of,
)
from perdure.cli.dev import engine as dev_engine
from perdure.cli.locations import SOCKET_PATH_BYTES_MAX, declared_path, socket_path
from perdure.worker import Worker
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.socket import serve
from perdure_runtime.clock import SystemClock
from perdure_runtime.workflow_driver import WorkflowEngine

gate = asyncio.Event()


@task
async def add_one(a: int) -> int:
    return a + 1


@task
async def pass_gate() -> str:
    await gate.wait()
    return "through"


@workflow
async def hello(a: int) -> int:
    return await add_one(a)


@workflow
async def waits() -> str:
    return await pass_gate()


@workflow
async def fails(message: str) -> None:
    raise WorkflowError(message)


@workflow
class Counter:
    def __init__(self) -> None:
        self.count = 0

    async def run(self, start: int) -> int:
        self.count = start
        await pass_gate()
        return self.count

    @query
    def now(self, factor: int = 1) -> int:
        return factor * self.count

    @update
    async def add(self, more: int) -> int:
        if more < 0:
            raise WorkflowError("only upwards")
        self.count += await add_one(more)
        return self.count


@workflow
async def family(a: int) -> list[int]:
    first, second = hello(a), workflow_of(Counter).options(id=f"child-{a}")(a)
    return [await first, await second]


def with_engine(work: Callable[[Client], Awaitable[None]]) -> None:
    """Run `work` with a client of an engine and a worker."""

    async def run() -> None:
        global gate
        gate = asyncio.Event()
        app = [add_one, pass_gate, hello, waits, fails, Counter, family]
        async with asyncio.timeout(60), Client.embedded(*app) as client:
            await work(client)

    asyncio.run(run())


def open_gate() -> None:
    """Tasks run on the worker's own loop, and asyncio's events belong to one: wake the waiter there."""
    loop = getattr(gate, "_loop", None)
    gate.set() if loop is None else loop.call_soon_threadsafe(gate.set)


def test_a_hundred_starts_under_one_id_make_one_run() -> None:
    async def work(client: Client) -> None:
        racing = [client.start(waits, id="same") for _ in range(100)]
        results = await asyncio.gather(*racing, return_exceptions=True)
        refused = [result for result in results if isinstance(result, AlreadyStarted)]
        (handle,) = [result for result in results if not isinstance(result, BaseException)]
        assert len(refused) == 99
        assert {error.run_id for error in refused} == {handle.run_id}
        open_gate()
        assert await handle.result() == "through"

    with_engine(work)


def test_conflict_policies() -> None:
    async def work(client: Client) -> None:
        first = await client.start(waits, id="same")
        same = await client.start(waits, id="same", conflict="use-existing")
        assert (same.run_id, same.existing, first.existing) == (first.run_id, True, False)
        other = await client.start(waits, id="same", conflict="terminate-existing")
        assert other.run_id != first.run_id
        assert not other.existing
        with pytest.raises(RunTerminated):
            await first.result()
        open_gate()
        assert await other.result() == "through"
        assert await client.execute(hello, 1, id="same") == 2, "an ended run holds its id no longer"

    with_engine(work)


def test_an_order_is_done_once_however_often_it_comes() -> None:
    async def work(client: Client) -> None:
        once = hello.options(id="order-1", conflict="use-existing", reuse="never")
        first = await client.start(once, 1)
        assert await first.result() == 2
        again = await client.start(once, 5)
        assert (again.run_id, await again.result()) == (first.run_id, 2)
        assert await client.execute(once, 5) == 2, "that of the run that has ended"
        for conflict in ("fail", "terminate-existing"):
            with pytest.raises(AlreadyStarted, match=r"has ended: completed, and reuse \"never\"") as refused:
                await client.execute(hello.options(conflict=conflict), 5, id="order-1", reuse="never")
            assert refused.value.run_id == first.run_id
        with pytest.raises(AlreadyStarted, match=r"reuse \"always\" does"):
            await client.start(hello, 5, id="order-1", reuse="after-failure")
        assert await client.execute(hello, 5, id="order-1") == 6

    with_engine(work)


def test_a_failed_order_is_begun_anew_only_where_that_is_wanted() -> None:
    async def work(client: Client) -> None:
        first = await client.start(fails, "no", id="order-1")
        with pytest.raises(RunFailed):
            await first.result()
        never = fails.options(id="order-1", conflict="use-existing", reuse="never")
        with pytest.raises(RunFailed, match="WorkflowError: no"):
            await client.execute(never, "again")
        assert await client.execute(hello, 1, id="order-1", reuse="after-failure") == 2

    with_engine(work)


def test_results_can_be_had_later_and_by_anybody_who_knows_the_id() -> None:
    async def work(client: Client) -> None:
        first = await client.start(hello, 1, id="h")
        assert await first.result() == 2
        assert await first.result() == 2
        assert await client.handle(hello, "h").result() == 2
        await client.execute(hello, 5, id="h")
        assert await client.handle("h").result() == 6
        assert await client.handle("h", run_id=first.run_id).result() == 2, "of an earlier run, from its history"
        with pytest.raises(RunNotFound):
            await client.handle("unheard-of").result()

    with_engine(work)


def test_queries_and_updates_talk_to_the_code_of_a_run() -> None:
    async def work(client: Client) -> None:
        counter = await client.start(Counter, 5, id="c")
        assert await counter.query(Counter.now) == 5
        assert await counter.update(Counter.add, 1) == 7
        assert await counter.update("add", 0) == 8
        assert await counter.query(Counter.now, factor=2) == 16
        assert await counter.query("now", 3) == 24
        with pytest.raises(UpdateFailed, match="only upwards"):
            await counter.update(Counter.add, -1)
        with pytest.raises(QueryFailed, match="no query 'later'; it has now"):
            await counter.query("later")
        open_gate()
        assert await counter.result() == 8
        assert await counter.query(Counter.now) == 8, "of an ended run too"
        with pytest.raises(Refused):
            await counter.update(Counter.add, 1)

    with_engine(work)


def test_children_are_called_like_tasks() -> None:
    async def work(client: Client) -> None:
        run = await client.start(family, 3)
        child = client.handle(Counter, "child-3")
        while True:
            try:
                await child.update(Counter.add, 6)
                break
            except RunNotFound:
                await asyncio.sleep(0)
        open_gate()
        assert await run.result() == [4, 10]

    with_engine(work)


@pytest.mark.parametrize("act", [Handle.cancel, Handle.terminate, Handle.pause, Handle.unpause, Handle.resume])
def test_what_is_done_to_no_run_is_told_and_does_nothing_to_a_later_one(
    act: Callable[[Handle[Any]], Awaitable[object]],
) -> None:
    async def work(client: Client) -> None:
        for run_id in ("", "a-run"):
            with pytest.raises(RunNotFound, match="there is no such run"):
                await act(client.handle("later", run_id=run_id))
        assert await client.execute(hello, 1, id="later") == 2

    with_engine(work)


def test_a_cancel_after_the_answer_to_a_start_reaches_the_run() -> None:
    async def work(client: Client) -> None:
        async def one(number: int) -> None:
            counter = await client.start(Counter, number, id=f"c{number}")
            await client.handle(counter.id).cancel()
            with pytest.raises(RunCanceled):
                await counter.result()

        await asyncio.gather(*(one(number) for number in range(50)))

    with_engine(work)


def test_cancel_terminate_and_resume() -> None:
    async def work(client: Client) -> None:
        run = await client.start(waits, id="w")
        await run.cancel("enough")
        with pytest.raises(RunCanceled):
            await run.result()
        run = await client.start(waits, id="w")
        await run.pause("later")
        await run.unpause()
        await run.terminate("now")
        with pytest.raises(RunTerminated, match="now"):
            await run.result()
        with pytest.raises(Refused, match="terminated"):
            await run.pause()
        failed = await client.start(fails, "no luck", id="f")
        for generation in (1, 2):
            with pytest.raises(RunFailed, match="WorkflowError: no luck") as raised:
                await failed.result()
            assert "raise WorkflowError(message)" in str(raised.value.failure)
            assert await failed.resume(reason="again") == generation

    with_engine(work)


def test_an_engine_that_does_not_serve_the_namespace_says_at_once_which_it_serves(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "dev.sock"
        server = await serve(memory_ports(SystemClock()), path, namespaces=["default", "test"])
        async with asyncio.timeout(60):
            async with Client.connect(path, namespace="test") as client:
                assert not (await client.list()).runs
            with pytest.raises(NamespaceNotServed, match="serves namespace 'default', 'test', not 'staging'") as raised:
                async with Client.connect(path, namespace="staging"):
                    pass
            assert list(raised.value.served) == ["default", "test"]
            with pytest.raises(NamespaceNotServed):
                await Worker.connect(path, Registry([add_one]), namespace="staging").run()
        await server.close()

    asyncio.run(run())


def test_a_client_connects_by_the_socket_or_by_the_database_beside_it(tmp_path: Path) -> None:
    async def run() -> None:
        ports = memory_ports(SystemClock())
        worker = Worker(ports.broker, Registry([add_one, hello]))
        database = tmp_path / "dev.sqlite"
        with pytest.raises(Unavailable, match="Is `perdure dev` running"):
            async with Client.connect(database):
                pass
        server = await serve(ports, tmp_path / "dev.sqlite.sock")
        async with asyncio.timeout(60):
            running = [
                asyncio.create_task(WorkflowEngine(ports, "default", "test").run()),
                asyncio.create_task(worker.run()),
            ]
            await worker.ready.wait()
            for path in (database, tmp_path / "dev.sqlite.sock"):
                async with Client.connect(path) as client:
                    assert await client.execute(hello, 1) == 2
                    handle = await client.start(hello, 2)
                    assert await handle.result() == 3
                    assert (await handle.history())[-1].event.__class__.__name__ == "RunEnded"
            for each in running:
                each.cancel()
            await asyncio.wait(running)
        await server.close()

    asyncio.run(run())


def test_databases_of_one_stem_are_two_engines(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            for name in ("x.sqlite", "x.db"):
                _, ports = await stack.enter_async_context(dev_engine(tmp_path / name, "default"))
                worker = asyncio.create_task(Worker(ports.broker, Registry([add_one, hello])).run())
                stack.callback(worker.cancel)
            for name, number in (("x.sqlite", 1), ("x.db", 2)):
                async with Client.connect(tmp_path / name) as client:
                    assert await client.execute(hello.options(id=f"of-{name}"), number) == number + 1
            for name in ("x.sqlite", "x.db"):
                async with Client.connect(tmp_path / name) as client:
                    while not (listed := (await client.list()).runs):  # noqa: ASYNC110 - it was told before
                        await asyncio.sleep(0.01)
                    assert [run.workflow_id for run in listed] == [f"of-{name}"]
        assert declared_path(tmp_path / "x.sqlite") != declared_path(tmp_path / "x.db")
        deep = tmp_path / ("d" * 90)
        deep.mkdir()
        sockets = {socket_path(deep / name) for name in ("x.sqlite", "x.db")}
        assert len(sockets) == 2
        assert all(len(str(path).encode()) <= SOCKET_PATH_BYTES_MAX for path in sockets)

    asyncio.run(run())


def test_a_worker_connects_by_the_socket_or_by_the_database_beside_it(tmp_path: Path) -> None:
    async def run() -> None:
        ports = memory_ports(SystemClock())
        database = tmp_path / "dev.sqlite"
        with pytest.raises(Unavailable, match="Is `perdure dev` running"):
            await Worker.connect(database, [add_one]).run()
        server = await serve(ports, tmp_path / "dev.sqlite.sock")
        async with asyncio.timeout(60):
            engine = asyncio.create_task(WorkflowEngine(ports, "default", "test").run())
            async with Client.connect(database) as client:
                for path in (database, tmp_path / "dev.sqlite.sock"):
                    worker = Worker.connect(path, [add_one, hello])
                    running = asyncio.create_task(worker.run())
                    assert await client.execute(hello, 1) == 2
                    worker.drain()
                    await running
            engine.cancel()
            await asyncio.wait([engine])
        await server.close()

    asyncio.run(run())


def test_a_worker_told_to_drain_while_it_connects_ends(tmp_path: Path) -> None:
    async def run() -> None:
        server = await serve(memory_ports(SystemClock()), tmp_path / "dev.sqlite.sock")
        worker = Worker.connect(tmp_path / "dev.sqlite", [add_one])
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        assert not worker.ready.is_set()
        worker.drain()
        await asyncio.wait_for(running, 20)
        await server.close()

    asyncio.run(run())
