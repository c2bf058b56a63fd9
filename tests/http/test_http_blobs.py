"""Large values over HTTP: whole for whoever speaks plain JSON, and by PUT and GET for workers and clients."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from perdure import Channel, Client, Worker, task, workflow
from perdure._engines import blobs_by_api
from perdure._http.application import make_application
from perdure._http.serving import serving
from perdure.convert import OFFLOAD_ABOVE_BYTES, STORED_BYTES_MAX
from perdure.errors import PayloadTooLarge, Unavailable
from perdure.payloads import Payloads
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.embedded import Embedded
from perdure_runtime.ports import Ports
from perdure_schemas.blobs import made_of
from tests.servers.provision import free_port

LARGE = "x" * 3_000_000
TOKEN = "secret"
KEYS = Payloads(keys={"k": bytes(32)}, current="k", compress_from=None)


@task
async def twice(text: str) -> str:
    return text + text


@workflow
async def doubling(text: str) -> str:
    return await twice(text)


@workflow
class Waits:
    go: Channel[str] = Channel()

    async def run(self, text: str) -> str:
        return f"{len(text)}{await self.go.receive()}"


class Api:
    """As curl sees it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, ports: Ports) -> None:
        self.url = url
        self.base = f"{url}/api/v1/namespaces/default"
        self.ports = ports
        self._session = session

    async def ask(
        self, method: str, path: str, data: Any = None, *, token: str = TOKEN, key: str = "", **parameters: Any
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}", **({"Idempotency-Key": key} if key else {})}
        data = io.BytesIO(data.encode() if isinstance(data, str) else data) if isinstance(data, str | bytes) else data
        async with self._session.request(
            method, self.base + path, data=data, params=parameters, headers=headers
        ) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def open_api(keys: Payloads | None = None) -> AsyncIterator[Api]:
    """A worker beside it has its large values from it, as on a cluster."""
    ports = memory_ports(SystemClock())
    async with (
        Embedded(ports),
        serving(make_application(ports, "default", token=TOKEN), "127.0.0.1", 0) as port,
        blobs_by_api(f"http://127.0.0.1:{port}", "default", TOKEN) as blobs,
    ):
        worker = Worker(ports.broker, [doubling, twice, Waits], payloads=keys, blobs=blobs)
        working = asyncio.create_task(worker.run())
        await worker.ready.wait()
        async with aiohttp.ClientSession() as session:
            yield Api(session, f"http://127.0.0.1:{port}", ports)
        worker.drain()
        await working


def with_api(work: Callable[[Api], Awaitable[None]], keys: Payloads | None = None) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), open_api(keys) as api:
            await work(api)

    asyncio.run(run())


def test_plain_json_has_whole_values_both_ways() -> None:
    async def work(api: Api) -> None:
        start = json.dumps({"name": "doubling", "args": [LARGE], "workflow_id": "d", "run_id": "r"})
        status, answer = await api.ask("POST", "/runs", start, wait="30")
        assert status == 200
        assert json.loads(answer)["end"]["result"] == LARGE + LARGE
        status, answer = await api.ask("GET", "/runs/d/result")
        assert json.loads(answer)["result"] == LARGE + LARGE
        status, answer = await api.ask("POST", "/tasks", json.dumps({"name": "twice", "args": [LARGE]}))
        assert json.loads(answer)["result"] == LARGE + LARGE

    with_api(work)


def test_a_history_has_references_whose_fields_get_the_bytes() -> None:
    async def work(api: Api) -> None:
        start = json.dumps({"name": "doubling", "args": [LARGE], "workflow_id": "d", "run_id": "r"})
        await api.ask("POST", "/runs", start, wait="30")
        _, answer = await api.ask("GET", "/runs/d/history", run_id="r")
        args = json.loads(answer)["events"][0]["event"]["args"]["$payload"]
        assert args["encoding"] == "json+blob"
        fields = json.loads(base64.b64decode(args["data"]))
        status, data = await api.ask("GET", f"/blobs/{fields.pop('id')}", **fields)
        assert (status, json.loads(data)) == (200, [LARGE])

    with_api(work)


@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_client_and_a_worker_put_and_get_what_is_large(keys: Payloads | None) -> None:
    async def work(api: Api) -> None:
        async with Client.connect(api.url, token=TOKEN, payloads=keys) as client:
            assert await client.execute(doubling, LARGE) == LARGE + LARGE
            assert await client.run(twice, LARGE) == LARGE + LARGE

    with_api(work, keys)


def test_two_requests_of_one_key_are_one_only_if_they_are_equal() -> None:
    async def work(api: Api) -> None:
        for name, text in (("alice", LARGE), ("bob", "b"), ("carol", "c" + LARGE)):
            start = json.dumps({"name": "doubling", "args": [text], "workflow_id": name})
            status, answer = await api.ask("POST", "/runs", start, key="order-1", wait="30")
            assert (status, json.loads(answer)["end"]["result"]) == (200, text + text)

    with_api(work)


@pytest.mark.parametrize("text", ["small", LARGE])
def test_a_signal_to_a_run_whose_end_is_waited_for_does_not_wait_for_it(text: str) -> None:
    async def work(api: Api) -> None:
        async with Client.connect(api.url, token=TOKEN) as client, asyncio.timeout(20):
            running = asyncio.create_task(client.execute(Waits, text, id="w"))
            while (await api.ask("GET", "/runs/w"))[0] == 404:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.05)
            await client.handle("w").signal(Waits.go, "!")
            assert await running == f"{len(text)}!"

    with_api(work)


def test_what_is_put_is_answered_by_what_refers_to_it() -> None:
    async def work(api: Api) -> None:
        data = b"[1]"
        status, answer = await api.ask("PUT", "/blobs/b-1", data)
        fields = {"id": "b-1", "size": 3, "sha256": hashlib.sha256(data).hexdigest()}
        assert (status, json.loads(answer)) == (201, fields)
        payload = {"encoding": "json+blob", "data": base64.b64encode(answer).decode()}
        _, answer = await api.ask("POST", "/tasks", json.dumps({"name": "twice", "args": {"$payload": payload}}))
        assert json.loads(answer)["failure"]["name"] == "SerializationError", "a number is no text, but it was read"

    with_api(work)


def test_what_cannot_be_put_or_got_is_said() -> None:
    async def work(api: Api) -> None:
        digest = made_of("b", b"data").sha256
        assert (await api.ask("PUT", "/blobs/b", b"data", token="wrong"))[0] == 401
        assert (await api.ask("PUT", "/blobs/a%20b", b"data"))[0] == 400
        assert (await api.ask("PUT", f"/blobs/{'b' * 65}", b"data"))[0] == 400
        assert (await api.ask("PUT", "/../other/blobs/b", b"data"))[0] == 404
        assert (await api.ask("PUT", "/blobs/b", b"data"))[0] == 201
        assert await api.ask("GET", "/blobs/b", size=4, sha256=digest) == (200, b"data")
        assert (await api.ask("GET", "/blobs/b", size=5, sha256=digest))[0] == 404
        assert (await api.ask("GET", "/blobs/b", size=4, sha256="0" * 64))[0] == 404
        assert (await api.ask("GET", "/blobs/b", size=4, sha256=digest, workflow_id="w", run_id="r"))[0] == 200, (
            "a run that has just recorded it may not have its own copy yet"
        )
        assert await api.ask("GET", "/blobs/c", size=4, sha256=digest) == (404, b'{"gone":true}')
        assert (await api.ask("GET", "/blobs/b"))[0] == 400

    with_api(work)


async def _pieces(size: int) -> AsyncIterator[bytes]:
    """Without its length beforehand."""
    for _ in range(-(-size // 65_536)):
        yield b"x" * 65_536


def test_no_more_is_read_than_a_blob_may_have() -> None:
    async def work(api: Api) -> None:
        for data in (b"x" * (STORED_BYTES_MAX + 1), _pieces(STORED_BYTES_MAX + 1)):
            status, answer = await api.ask("PUT", "/blobs/b", data)
            assert (status, json.loads(answer)["error"]) == (413, f"a blob has at most {STORED_BYTES_MAX:,} bytes")
        assert (await api.ask("PUT", "/blobs/b", b"x" * STORED_BYTES_MAX))[0] == 201

    with_api(work)


def test_an_api_that_refuses_a_worker_is_taken_for_away() -> None:
    """Whoever gave it the wrong token gives it the right one; its tasks wait meanwhile."""

    async def work(api: Api) -> None:
        data = b"x" * (OFFLOAD_ABOVE_BYTES + 1)
        async with blobs_by_api(api.url, "default", "wrong") as blobs:
            assert blobs is not None
            with pytest.raises(Unavailable, match="show the API's token"):
                await blobs.put(made_of("b", data), data)
        async with blobs_by_api(api.url, "default", TOKEN) as blobs:
            assert blobs is not None
            assert await blobs.get(made_of("nothing", data)) is None
            with pytest.raises(PayloadTooLarge, match="a blob has at most"):
                await blobs.put(made_of("b", data * 70), data * 70)
        async with blobs_by_api("", "default", TOKEN) as blobs:
            assert blobs is None

    with_api(work)


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[str]:
    """The URL of what answers everything so."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner, port = web.AppRunner(application), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("body", ["<html>413 Request Entity Too Large</html>", '{"message": "too large"}'])
def test_a_body_that_a_proxy_refuses_is_told_to_be_its(body: str) -> None:
    async def run() -> None:
        async with answering(413, body) as url, blobs_by_api(url, "default", "") as blobs:
            assert blobs is not None
            with pytest.raises(PayloadTooLarge, match="a proxy in front of"):
                await blobs.put(made_of("b", b"[1]"), b"[1]")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "404 page not found"),
        (404, '{"detail": "Not Found"}'),
        (404, '{"error": "this API serves namespace \'other\'"}'),
        (404, '{"gone": false}'),
        (400, "{}"),
        (204, ""),
    ],
)
def test_whoever_knows_nothing_of_blobs_is_taken_for_an_api_that_is_away(status: int, body: str) -> None:
    """A value is not lost, nor taken for stored, because a proxy has no API for a while, or a setting is wrong."""

    async def run() -> None:
        async with answering(status, body) as url, blobs_by_api(url, "default", "") as blobs:
            assert blobs is not None
            with pytest.raises(Unavailable, match="PERDURE_URL"):
                await blobs.put(made_of("b", b"[1]"), b"[1]")
            with pytest.raises(Unavailable, match="PERDURE_URL"):
                await blobs.get(made_of("b", b"[1]"))

    asyncio.run(run())
