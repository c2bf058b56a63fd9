"""A client's backend over HTTP: each message becomes a request, and what comes back is delivered as its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from perdure._client.backend import AsItComes
from perdure._http.blobs import HttpBlobs
from perdure._http.caller import Caller
from perdure._http.endpoints import STILL_OPEN, Endpoint, endpoint_of
from perdure._http.forms import of_plain, to_json
from perdure.errors import PerdureError, RunNotFound
from perdure_runtime.announced import Announced
from perdure_runtime.ports import RunFilter, RunPage
from perdure_schemas.events import Recorded
from perdure_schemas.messages import (
    Body,
    Message,
    QueryRun,
    RunChanged,
    StartReply,
    StartWorkflow,
    TaskChanged,
    WaitForResult,
)

_WAIT_SECONDS = 25
"""Of one request for a result: shorter than proxies allow."""


class HttpBackend(AsItComes):
    """Of an API at a URL."""

    pushes_ends = False
    registry = None

    def __init__(self, url: str, namespace: str, token: str = "") -> None:
        self.namespace = namespace
        self._caller = Caller(url, namespace, token)
        self.blobs = HttpBlobs(self._caller)
        self._deliver: Callable[[Message], None] = lambda _: None
        self._calls: set[asyncio.Task[None]] = set()
        self._polled: set[tuple[str, ...]] = set()

    async def open(self, client_id: str, deliver: Callable[[Message], None]) -> None:
        self._caller.open(client_id)
        self._deliver = deliver

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._caller.close()

    def publish(self, topic: str, message: Message, *, until_end: bool = False) -> asyncio.Future[None]:
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = asyncio.create_task(self._call(message, accepted, until_end))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return accepted

    async def _call(self, message: Message, accepted: asyncio.Future[None], until_end: bool) -> None:
        endpoint = endpoint_of(message.body)
        polled = (endpoint.path, *_path_values(endpoint, message.body).values(), getattr(message.body, "run_id", ""))
        if endpoint.reads and polled in self._polled:
            accepted.set_result(None)
            return
        self._polled.add(polled)
        try:
            if endpoint.reads and not accepted.done():
                accepted.set_result(None)
            await self._ask(endpoint, message, until_end)
        except PerdureError as error:
            if not accepted.done():
                accepted.set_exception(error)
        finally:
            self._polled.discard(polled)
            if not accepted.done():
                accepted.set_result(None)

    async def _ask(self, endpoint: Endpoint, message: Message, until_end: bool) -> None:
        path = quote(endpoint.path, safe="/{}").format(
            **{name: quote(value, safe="") for name, value in _path_values(endpoint, message.body).items()}
        )
        while True:
            if endpoint.reads:
                run_id = getattr(message.body, "run_id", "")
                parameters = {"wait": str(_WAIT_SECONDS), "follow": "false", **({"run_id": run_id} if run_id else {})}
                status, data = await self._caller.request("GET", path, parameters=parameters)
            else:
                body = to_json(_given(endpoint, message.body))
                waits = {"wait": str(_WAIT_SECONDS)} if until_end and endpoint.end is not None else None
                status, data = await self._caller.request("POST", path, parameters=waits, body=body, key=message.id)
            if status != STILL_OPEN:
                break
            if not endpoint.reads:
                return  # who asked will ask again
        found = msgspec.json.decode(data)
        reply = of_plain(endpoint.reply, found)
        self._answer(reply, message)
        if endpoint.end is not None and "end" in found:
            self._answer(of_plain(endpoint.end, found["end"]), message)
        elif until_end and isinstance(reply, StartReply) and reply.status == "ok":
            await self._wait(message, reply.run_id)

    async def _wait(self, message: Message, run_id: str) -> None:
        """For the end of a run that did not end while it was started."""
        start = message.body
        assert isinstance(start, StartWorkflow)
        body = WaitForResult(workflow_id=start.workflow_id, run_id=run_id, reply_topic=start.reply_topic)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._call(msgspec.structs.replace(message, body=body), accepted, until_end=False)
        accepted.result()

    def _answer(self, reply: Any, message: Message) -> None:
        now = time.time_ns() // 1_000_000
        self._deliver(
            Message(
                id=f"{message.id}-reply", namespace=self.namespace, key="", at=now, body=reply, emitter="api",
                causation_id=message.id,
            )
        )  # fmt: skip

    # -- reads -------------------------------------------------------------------------------------

    async def list_runs(self, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        asked = {
            "name": where.name, "status": where.status, "tag": where.tag, "workflow_id": where.workflow_id,
            "attribute": None if where.attribute is None else "=".join(where.attribute), "waits_for": where.waits_for,
            "started_from": where.started_from, "started_before": where.started_before,
            "limit": limit, "cursor": cursor,
        }  # fmt: skip
        found = await self._read("/runs", {name: str(value) for name, value in asked.items() if value is not None})
        return RunPage(runs=of_plain(list[RunChanged], found["runs"]), cursor=found["cursor"])

    async def get_run(self, workflow_id: str, run_id: str | None) -> RunChanged | None:
        parameters = {} if run_id is None else {"run_id": run_id}
        try:
            found: RunChanged = of_plain(
                RunChanged, await self._read(f"/runs/{quote(workflow_id, safe='')}", parameters)
            )
        except RunNotFound:
            if run_id is None:
                raise  # in the API's words: the namespace may be another
            return None  # who asks for a run just started asks again
        return found

    async def list_tasks(self, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        found = await self._read(f"/runs/{quote(workflow_id, safe='')}/tasks", {"run_id": run_id})
        tasks: list[TaskChanged] = of_plain(list[TaskChanged], found["tasks"])
        return tasks

    async def counts(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = (await self._read("/counts", {}))["counts"]
        return counts

    async def history(self, workflow_id: str, run_id: str, after_seq: int, limit: int) -> Sequence[Recorded]:
        parameters = {"run_id": run_id, "after": str(after_seq), "limit": str(limit)}
        found = await self._read(f"/runs/{quote(workflow_id, safe='')}/history", parameters)
        events: list[Recorded] = of_plain(list[Recorded], found["events"])
        return events

    async def announced(self) -> Announced | None:
        found: Announced = of_plain(Announced, await self._read("/announced", {}))
        return found

    async def _read(self, path: str, parameters: dict[str, str]) -> Any:
        _, data = await self._caller.request("GET", path, parameters=parameters)
        return msgspec.json.decode(data)


def _path_values(endpoint: Endpoint, body: Body) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in ("workflow_id", "task_id", "channel", "name"):
        if f"{{{name}}}" in endpoint.path:
            values[name] = body.query.name if isinstance(body, QueryRun) and name == "name" else getattr(body, name)
    return values


def _given(endpoint: Endpoint, body: Struct) -> dict[str, Any]:
    """The fields of the message that the endpoint takes."""
    source: Any = body
    if isinstance(body, QueryRun):
        query = body.query
        return {"query_id": query.query_id, "args": query.args, **({"run_id": body.run_id} if body.run_id else {})}
    return {name: getattr(source, name) for name in endpoint.fields}
