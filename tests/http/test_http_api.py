"""The HTTP API and the client that speaks it, on a memory engine: every endpoint, every status of an error."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from perdure import Channel, Client, query, task, update, workflow
from perdure._client.requests import Requests
from perdure._http.application import make_application
from perdure._http.bodies import BODY_MAX_BYTES
from perdure._http.caller import Caller
from perdure._http.endpoints import ENDPOINTS
from perdure._http.expected import KEPT_MAX, ExpectedEnds
from perdure._http.serving import Unprotected, check_exposure, serving
from perdure.errors import AlreadyStarted, RunFailed, RunNotFound, Unavailable
from perdure.worker import Worker
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.embedded import Embedded
from perdure_schemas import topics
from perdure_schemas.messages import WaitForResult
from tests.servers.provision import free_port

Answer = tuple[int, Any]


@task
async def increase(n: int) -> int:
    return n + 1


@task
async def refuse(n: int) -> int:
    raise ValueError(f"no {n}")


@workflow
async def hello(n: int) -> int:
    return await increase(n)


@workflow
async def fails(n: int) -> int:
    return await refuse(n)


@workflow
class Order:
    go: Channel[str] = Channel()

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def run(self) -> str:
        while len(self.seen) < 3:
            self.seen.append(await self.go.receive())
        return "".join(self.seen)

    @query
    def status(self) -> list[str]:
        return self.seen

    @update
    async def add(self, text: str) -> int:
        self.seen.append(text)
        return len(self.seen)


class Api:
    """What a caller without our client sees."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self.base = base

    async def get(self, path: str, **headers: str) -> Answer:
        async with self._session.get(self.base + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        async with self._session.post(self.base + path, headers=headers, data=io.BytesIO(data)) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def open_api(token: str = "", more: Sequence[object] = ()) -> AsyncIterator[tuple[Api, str]]:
    ports = memory_ports(SystemClock())
    async with Embedded(ports):
        worker = Worker(ports.broker, [increase, refuse, hello, fails, Order, *more])
        working = asyncio.create_task(worker.run())
        await worker.ready.wait()
        async with serving(make_application(ports, "default", token=token), "127.0.0.1", 0) as port:
            url = f"http://127.0.0.1:{port}"
            async with aiohttp.ClientSession() as session:
                yield Api(session, f"{url}/api/v1/namespaces/default"), url
        worker.drain()
        await working


def with_api(work: Callable[[Api, str], Awaitable[None]], token: str = "", more: Sequence[object] = ()) -> None:
    async def run() -> None:
        async with open_api(token, more) as (api, url):
            await asyncio.wait_for(work(api, url), 60)

    asyncio.run(run())


def test_a_run_by_its_endpoints() -> None:
    async def work(api: Api, url: str) -> None:
        status, started = await api.post("/runs", {"name": "hello", "args": [1], "workflow_id": "h", "run_id": "r"})
        assert (status, started["run_id"]) == (200, "r")
        again = await api.post("/runs", {"name": "hello", "args": [1], "workflow_id": "h", "run_id": "r"})
        assert again[0] == 200, "the same start again is the same run"
        status, result = await api.get("/runs/h/result")
        assert (status, result["status"], result["result"]) == (200, "completed", 2)
        assert (await api.get("/runs/h"))[1]["status"] == "completed"
        status, listed = await api.get("/runs?name=hello&status=completed&limit=1")
        assert [run["workflow_id"] for run in listed["runs"]] == ["h"]
        events = (await api.get("/runs/h/history?run_id=r&after=1&limit=2"))[1]["events"]
        assert [event["seq"] for event in events] == [2, 3]
        assert (await api.get("/runs/h/tasks?run_id=r"))[0] == 200
        assert (await api.get("/counts"))[1] == {"counts": {"hello": {"completed": 1}}}
        assert await api.get("/backlog") == (200, {"backlog": [], "total": 0})
        found = {"workflows": ["Order", "fails", "hello"], "tasks": ["increase", "refuse"]}
        assert await api.get("/announced") == (200, {**found, "broken": "", "left_out": {}, "database": ""})

    with_api(work)


def test_a_start_of_what_no_worker_has_announced_is_taken_and_warned_of() -> None:
    """A worker that has it may come later."""

    async def work(api: Api, url: str) -> None:
        status, started = await api.post("/runs", {"name": "helo", "workflow_id": "h"})
        assert (status, started["status"]) == (200, "ok")
        assert started["warning"] == (
            "no worker has announced a workflow 'helo' yet; known: hello, Order, fails; the run waits until one does"
        )
        assert "warning" not in (await api.post("/runs", {"name": "hello", "args": [1]}))[1]
        assert "warning" not in (await api.post("/tasks", {"name": "increase", "args": [1]}))[1]

    with_api(work)


def test_a_client_by_url_tells_what_no_worker_has_announced(caplog: pytest.LogCaptureFixture) -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            await client.start("hello", 1)
            await client.start_task("increase", 1)
            assert not caplog.text
            await client.start("helo", 1)
            assert "no worker has announced a workflow 'helo' yet; known: hello, Order, fails;" in caplog.text
            await client.start_task("increse", 1)
            assert "no worker has announced a task 'increse' yet; known: increase, refuse; it waits" in caplog.text

    with_api(work)


def test_a_start_whose_last_run_has_ended() -> None:
    async def work(api: Api, url: str) -> None:
        hello = {"name": "hello", "args": [1], "workflow_id": "h"}
        first = (await api.post("/runs", hello))[1]["run_id"]
        assert (await api.get("/runs/h/result"))[1]["result"] == 2
        status, told = await api.post("/runs", hello | {"reuse_policy": "never"})
        assert (status, told["run_id"]) == (409, first)
        assert 'has ended: completed, and reuse "never" lets no other begin' in told["detail"]
        status, told = await api.post("/runs", hello | {"reuse_policy": "never", "conflict_policy": "use-existing"})
        assert (status, told["run_id"]) == (200, first)
        status, told = await api.post("/runs", hello | {"reuse_policy": "always"})
        assert status == 200
        assert told["run_id"] != first
        assert (await api.post("/runs", hello | {"reuse_policy": "once"}))[0] == 400

    with_api(work)


def test_a_client_is_given_the_run_that_has_ended() -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            once = hello.options(id="once", conflict="use-existing", reuse="never")
            assert [await client.execute(once, n) for n in (1, 5)] == [2, 2]
            with pytest.raises(AlreadyStarted, match="has ended: completed"):
                await client.start(once.options(conflict="fail"), 5)

    with_api(work)


def test_a_run_that_is_talked_to() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await api.post("/runs", {"name": "Order", "workflow_id": "o"}))[0] == 200
        assert (await api.get("/runs/o/result?wait=0.05"))[0] == 202
        assert (await api.post("/runs/o/signals/go", {"payload": "a"}))[0] == 200
        assert (await api.post("/runs/o/updates/add", {"args": ["b"]}))[1]["result"] == 2
        assert (await api.post("/runs/o/queries/status"))[1]["result"] == ["a", "b"]
        assert (await api.post("/runs/o/pause"))[0] == 200
        assert (await api.post("/runs/o/unpause"))[0] == 200
        assert (await api.post("/runs/o/signals/go", {"payload": "c"}))[0] == 200
        assert (await api.get("/runs/o/result"))[1]["result"] == "abc"
        for action, ends in (("cancel", "canceled"), ("terminate", "terminated")):
            assert (await api.post("/runs", {"name": "Order", "workflow_id": action}))[0] == 200
            assert (await api.post(f"/runs/{action}/{action}", {"reason": "test"}))[0] == 200
            assert (await api.get(f"/runs/{action}/result"))[1]["status"] == ends

    with_api(work)


async def stuck(api: Api, id: str) -> Any:
    """The run, once it is."""
    while True:
        found = (await api.get(f"/runs/{id}"))[1]
        if found["status"] == "stuck":
            return found
        await asyncio.sleep(0.01)


def test_a_skip_that_does_not_fit_is_healed_by_another_one_and_a_reset_takes_edits() -> None:
    """The API knows no types: the worker tells, and the run waits for a result that fits."""

    async def work(api: Api, url: str) -> None:
        assert (await api.post("/runs", {"name": "fails", "args": [1], "workflow_id": "f"}))[0] == 200
        assert (await api.get("/runs/f/result"))[1]["status"] == "failed"
        wrong, right = ({"edits": [{"position": "0", "result": result}]} for result in ("abc", 7))
        assert (await api.post("/runs/f/resume", wrong))[0] == 200
        assert (await stuck(api, "f"))["last_error"].startswith(
            "UnfitSkip: what was given by skip for task refuse at position 0"
        )
        assert (await api.post("/runs/f/resume", right))[0] == 200
        assert (await api.get("/runs/f/result"))[1]["result"] == 7
        reset = {"position": "0", "edits": [{"position": "0", "result": 8}]}
        assert (await api.post("/runs/f/reset", reset))[0] == 200
        assert (await api.get("/runs/f/result"))[1]["result"] == 8

    with_api(work)


def test_stand_alone_tasks() -> None:
    async def work(api: Api, url: str) -> None:
        status, answer = await api.post("/tasks", {"name": "increase", "args": [41], "task_id": "t"})
        assert (status, answer["result"]) == (200, 42)
        assert (await api.get("/tasks/t/result"))[1]["result"] == 42
        for action in ("cancel", "retry"):
            assert (await api.post(f"/tasks/nobody/{action}"))[0] == 404
        assert (await api.post("/tasks/nobody/complete", {"outcome": "completed"}))[0] == 404

    with_api(work)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/runs", {"nam": 1}, 400, "unknown: nam"),
        ("/runs", {"name": 7}, 400, "name"),
        ("/runs", b"{x", 400, "no JSON"),
        ("/runs", b"[1]", 400, "a JSON object"),
        ("/runs", b"{" + b" " * BODY_MAX_BYTES + b"}", 413, "at most"),
        ("/runs", {"name": "hello", "args": ["x" * (17 << 20)]}, 413, "over the limit of 16,778,240"),
        ("/runs/nobody/terminate", {}, 404, ""),
        ("/runs/nobody/resume", {}, 404, ""),
        ("/runs/nobody/reset", {"position": "1"}, 404, ""),
        ("/runs/nobody/move", {"build": "b"}, 404, ""),
        ("/nowhere", {}, 404, "there is nothing at this path"),
    ],
)
def test_what_cannot_be_done_is_said(path: str, body: Any, status: int, says: str) -> None:
    async def work(api: Api, url: str) -> None:
        found, answer = await api.post(path, body)
        assert (found, answer) == (status, answer)
        assert says in str(answer.get("error", ""))

    with_api(work)


def test_reads_that_cannot_be_done_are_said() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await api.get("/runs?limit=0"))[0] == 400
        assert (await api.get("/runs/nobody"))[0] == 404
        assert (await api.get("/runs/nobody/result?wait=x"))[0] == 400
        api.base = api.base.replace("default", "other")
        assert (await api.get("/runs")) == (404, {"error": "this API serves namespace 'default'"})

    with_api(work)


def test_a_token_is_asked_for() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await api.get("/counts"))[0] == 401
        assert (await api.get("/counts", Authorization="Bearer wrong"))[0] == 401
        assert (await api.get("/counts", Authorization="Bearer secret"))[0] == 200

    with_api(work, token="secret")
    check_exposure("127.0.0.1", "")
    check_exposure("0.0.0.0", "secret")
    with pytest.raises(Unprotected, match="PERDURE_API_TOKEN"):
        check_exposure("0.0.0.0", "")


def test_the_client_speaks_it() -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            assert await client.execute(hello, 1) == 2
            order = await client.start(Order, id="o")
            for text in "abc":
                await order.signal(Order.go, text)
            assert await order.result() == "abc"
            failed = await client.start(fails, 3, id="f")
            with pytest.raises(RunFailed, match="no 3"):
                await failed.result()
            assert (await failed.describe()).status == "failed"
            await client.start(Order, id="open")
            with pytest.raises(AlreadyStarted):
                await client.start(Order, id="open", conflict="fail")
            with pytest.raises(RunNotFound):
                await client.handle("nobody").terminate()
            for run_id in ("", "a-run"):
                with pytest.raises(RunNotFound):
                    await client.handle("nobody", run_id=run_id).describe()
            assert await client.run(increase, 41) == 42
            while (await client.counts()).get("hello") != {"completed": 1}:  # noqa: ASYNC110 - read models lag
                await asyncio.sleep(0.01)

    with_api(work)


def test_a_restart_of_the_api_is_not_seen_by_its_clients() -> None:
    async def run() -> None:
        ports = memory_ports(SystemClock())
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Embedded(ports))
            worker = Worker(ports.broker, [Order])
            working = asyncio.create_task(worker.run())
            port = free_port()  # one that nobody else is given while no API listens there
            async with serving(make_application(ports, "default"), "127.0.0.1", port):
                client = await stack.enter_async_context(Client.connect(f"http://127.0.0.1:{port}"))
                order = await client.start(Order, id="o")
            result = asyncio.create_task(order.result())
            signals = [asyncio.create_task(order.signal(Order.go, text)) for text in "abc"]
            await asyncio.wait([result, *signals], timeout=0.5)
            assert not any(call.done() for call in (result, *signals)), "nobody is there to take them"
            async with serving(make_application(ports, "default"), "127.0.0.1", port):
                await asyncio.gather(*signals)
                assert await result == "abc"
            worker.drain()
            await working

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_api_that_was_never_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked everything once: what has not answered yet is not waited for."""
    asked: list[str] = []
    send = Caller._send

    async def told_send(self: Caller, method: str, path: str, **what: Any) -> tuple[int, bytes]:
        asked.append(path)
        return await send(self, method, path, **what)

    monkeypatch.setattr(Caller, "_send", told_send)

    async def run() -> None:
        async with Client.connect("http://127.0.0.1:1") as client:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await client.start(Order, id="o")

    asyncio.run(run())
    assert len(asked) == len(set(asked)) > 0


def test_every_endpoint_is_described() -> None:
    async def work(api: Api, url: str) -> None:
        api.base = url
        described = (await api.get("/api/v1/openapi.json"))[1]["paths"]
        for endpoint in ENDPOINTS:
            assert f"/api/v1/namespaces/{{namespace}}{endpoint.path}" in described

    with_api(work)


def test_nobody_asks_for_the_end_of_what_was_just_started() -> None:
    """A question would have the engine commit what it holds, and do a turn twice."""

    async def scenario() -> None:
        ports = memory_ports(SystemClock())
        async with Embedded(ports):
            looking = await ports.broker.subscribe("default", [topics.WORKFLOW_ENGINE], "test", "exclusive")
            worker = Worker(ports.broker, [increase, refuse, hello, fails])
            working = asyncio.create_task(worker.run())
            await worker.ready.wait()
            async with (
                serving(make_application(ports, "default"), "127.0.0.1", 0) as port,
                Client.connect(f"http://127.0.0.1:{port}") as client,
            ):
                assert await client.execute(hello, 1) == 2
                assert await questions(looking) == 0
                handle = await client.start(fails, 1)
                with pytest.raises(RunFailed):
                    await handle.result()
                assert await questions(looking) == 0
                with pytest.raises(RunFailed):
                    await handle.result()  # again: now the engine is asked
                assert await questions(looking) == 1
            worker.drain()
            await working

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_an_end_that_was_undone_is_not_told() -> None:
    async def work(api: Api, _: str) -> None:
        status, started = await api.post("/runs", {"name": "fails", "args": [1]})
        assert status == 200
        run = f"/runs/{started['workflow_id']}"
        while (await api.get(run))[1]["status"] != "failed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert (await api.post(f"{run}/resume"))[0] == 200
        status, result = await api.get(f"{run}/result?run_id={started['run_id']}")
        assert (status, result["status"], result["generation"]) == (200, "failed", 1)

    with_api(work)


def test_an_end_that_another_api_or_a_child_s_resume_undid_is_not_told() -> None:
    """Of what may be resumed the engine is asked."""
    broken = {"value": True}

    @task
    async def flaky(n: int) -> int:
        if broken["value"]:
            raise ValueError("not yet")
        return n

    @workflow
    async def kid(n: int) -> int:
        return await flaky(n)

    @workflow
    async def parent(n: int) -> int:
        return await kid.options(id="kid-1")(n)

    async def work(api: Api, _: str) -> None:
        status, started = await api.post("/runs", {"name": "parent", "args": [1], "workflow_id": "p"})
        assert status == 200
        while (await api.get("/runs/p"))[1].get("status") != "failed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        broken["value"] = False
        assert (await api.post("/runs/kid-1/resume"))[0] == 200
        while (await api.get("/runs/p"))[1].get("status") != "completed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        status, end = await api.get(f"/runs/p/result?run_id={started['run_id']}")
        assert (status, end["status"]) == (200, "completed")

    with_api(work, more=[flaky, kid, parent])


def test_a_start_that_comes_again_loses_no_end() -> None:
    """And a caller may choose one id for everything."""

    async def work(api: Api, _: str) -> None:
        body = {"name": "hello", "args": [1], "workflow_id": "h", "run_id": "r"}
        await api.post("/runs", body, **{"Idempotency-Key": "r"})
        while (await api.get("/runs/h"))[1].get("status") != "completed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await api.post("/runs", body, **{"Idempotency-Key": "r"})
        status, end = await api.get("/runs/h/result?run_id=r&wait=0.5")
        assert (status, end["status"]) == (200, "completed")

    with_api(work)


def test_few_ends_are_kept() -> None:
    async def run() -> None:
        requests = Requests(cast(Any, SimpleNamespace(namespace="default")), "me", "inbox.me")
        ends = ExpectedEnds(requests)
        for n in range(3 * KEPT_MAX):
            ends.expect(f"w{n}", f"r{n}")
        kept = [n for n in range(3 * KEPT_MAX) if f"r{n}" in requests._expected]
        assert kept == list(range(2 * KEPT_MAX, 3 * KEPT_MAX))

    asyncio.run(run())


async def questions(consumer: Any) -> int:
    """How many ends were asked for since the last call."""
    found = 0
    while True:
        try:
            batch = await asyncio.wait_for(consumer.receive(), 0.3)
        except TimeoutError:
            return found
        found += sum(isinstance(each.message.body, WaitForResult) for each in batch)
        await consumer.ack(batch)
