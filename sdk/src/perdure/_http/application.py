"""The HTTP API on a broker, a read model and a store: what clients, the command line and the page speak to."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure._client.backend import PortsBackend
from perdure._client.requests import Requests
from perdure._client.signals import Signals
from perdure._client.unknown import Known
from perdure._http.asking import Asker
from perdure._http.blob_endpoints import add_blobs
from perdure._http.bodies import Problem, read_object
from perdure._http.checks import refuse_unknown_parameters
from perdure._http.endpoints import (
    ENDPOINTS,
    NO_SUCH_PATH,
    STATUS_CODES,
    STILL_OPEN,
    WAIT_SECONDS_MAX,
    Endpoint,
)
from perdure._http.forms import MalformedJson, plain, to_json
from perdure._http.openapi import document
from perdure._http.paths import as_sent, namespace_of, route
from perdure._http.pools import add_pools
from perdure._http.shapes import StillOpen
from perdure._ids import IdSource
from perdure._payloads.backend import CodedBackend
from perdure._payloads.blobs import StoreBlobs
from perdure.errors import PayloadTooLarge, Unavailable
from perdure_runtime.announced import Announced, Announcements
from perdure_runtime.errors import InvalidCursor, MessageTooLarge, StorageUnavailable
from perdure_runtime.pools import Backlog, MakePools
from perdure_runtime.ports import Ports, RunFilter
from perdure_schemas import topics
from perdure_schemas.messages import TaskResult

log = logging.getLogger("perdure.api")

PAGE_MAX = 1_000
_COMMAND_SECONDS = 30.0
"""An engine answers in milliseconds, its successor in seconds."""


def make_application(
    ports: Ports,
    namespace: str,
    *,
    token: str = "",
    backlog: Backlog | None = None,
    make_pools: MakePools | None = None,
    announcements: Announcements | None = None,
) -> FastAPI:
    """The API of one namespace.

    Args:
        token: callers must show it as `Authorization: Bearer …`; empty: anybody may call.
        backlog: what waits for workers, where that can be known.
        make_pools: makes topics of workers, where a broker does not keep by itself what comes before the first one.
        announcements: what workers have, where the broker does not know it by itself.
    """
    backend = PortsBackend(namespace)
    backend.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs, announcements=announcements)
    outer = CodedBackend(backend, payloads=None)  # callers keep the keys: only what is large is taken out and put back
    known = Known(backend.announced)
    asker: list[Asker] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        me = IdSource()()
        requests = Requests(outer, me, topics.inbox(me))
        await outer.open(me, requests.deliver)
        asker.append(Asker(requests, Signals(requests, me), known))
        yield
        requests.close()
        await outer.close()

    application = FastAPI(
        title="Perdure", version="1", lifespan=lifespan, openapi_url="/api/v1/openapi.json",
        dependencies=[Depends(refuse_unknown_parameters)],
    )  # fmt: skip
    application.add_middleware(_Guard, namespace=namespace, token=token)
    _answer_errors(application)
    for endpoint in ENDPOINTS:
        application.add_api_route(
            route(endpoint.path),
            _asking(endpoint, asker),
            methods=["GET" if endpoint.reads else "POST"],
            summary=endpoint.summary,
            openapi_extra={"parameters": _parameters(endpoint)},
            response_class=Response,
        )
    _add_reads(application, backend)
    add_pools(application, ports, namespace, backlog=backlog, make_pools=make_pools)
    add_blobs(application, StoreBlobs(ports.blobs, namespace))
    application.openapi = cache(partial(document, application))  # type: ignore[method-assign]
    return application


class _Guard:
    """Lets through what shows the token and asks for this namespace.

    A plain ASGI application: FastAPI's `@middleware` runs each request in a task group, for one look at it.
    """

    def __init__(self, app: ASGIApp, namespace: str, token: str) -> None:
        self._app = app
        self._namespace = namespace
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = as_sent(scope)
        await (self._refusal(seen) or self._app)(seen, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        if self._expected:
            shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(shown, self._expected):
                return _problem(401, "show the API's token: Authorization: Bearer …")
        if namespace_of(scope["path"]) not in {None, self._namespace}:
            return _problem(404, f"this API serves namespace {self._namespace!r}")
        return None


def _answer_errors(application: FastAPI) -> None:
    async def answer(_: Request, error: Exception) -> Response:
        match error:
            case Problem():
                return _problem(error.status, str(error))
            case MalformedJson() | InvalidCursor():
                return _problem(400, str(error))
            case RequestValidationError():
                first = error.errors()[0]
                return _problem(400, f"{first['loc'][-1]}: {first['msg']}")
            case HTTPException(status_code=404):
                return _problem(404, NO_SUCH_PATH)
            case HTTPException():
                return _problem(error.status_code, str(error.detail))
            case PayloadTooLarge() | MessageTooLarge():
                return _problem(413, str(error))
            case Unavailable() | StorageUnavailable():
                return _problem(503, str(error))
            case _:
                log.error("request failed", exc_info=error, extra={"action": "request_failed"})
                return _problem(500, "a defect of the API; its log says more")

    kinds = (Problem, MalformedJson, InvalidCursor, PayloadTooLarge, MessageTooLarge, Unavailable, StorageUnavailable)
    for kind in (*kinds, RequestValidationError, HTTPException, Exception):
        application.add_exception_handler(kind, answer)


def _asking(endpoint: Endpoint, asker: list[Asker]) -> Callable[..., Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        path = {name: value for name, value in request.path_params.items() if name != "namespace"}
        if endpoint.reads:
            given: dict[str, Any] = dict(request.query_params)
            wait = _seconds(given.pop("wait", str(WAIT_SECONDS_MAX)))
            follow = given.pop("follow", "true") != "false"
        else:
            given, follow = await read_object(request), True
            wait = (
                _seconds(request.query_params["wait"])
                if endpoint.waits and "wait" in request.query_params
                else _COMMAND_SECONDS
            )
        end_wait = _seconds(request.query_params.get("wait", "0")) if endpoint.end is not None else 0.0
        message = asker[0].message(endpoint, given, path, request.headers.get("idempotency-key", ""))
        answer = await asker[0].ask(endpoint, message, wait, follow)
        warning = await asker[0].warning(message, answer)
        more: dict[str, Any] = {"warning": warning} if warning else {}
        if detail := asker[0].detail(message, answer):
            more["detail"] = detail
        if answer is None:
            return _json({**plain(_still_open(message.body)), **more}, STILL_OPEN)
        end = await asker[0].end_of_start(message, answer, end_wait) if end_wait else None
        if end is not None:
            more["end"] = plain(end)
        return _json({**plain(answer), **more}, _code(answer))

    return handle


def _add_reads(application: FastAPI, backend: PortsBackend) -> None:
    @application.get(route("/runs"), summary="Runs, newest first, a page at a time.", response_class=Response)
    async def list_runs(
        *,
        name: str | None = None,
        status: str | None = None,
        tag: str | None = None,
        workflow_id: str | None = None,
        attribute: Annotated[str | None, Query(description="name=value")] = None,
        waits_for: str | None = None,
        started_from: int | None = None,
        started_before: int | None = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        cursor: str | None = None,
    ) -> Response:
        name_, equals, value = (attribute or "").partition("=")
        if attribute and not (name_ and equals):
            raise Problem(400, f"attribute: name=value is expected, not {attribute!r:.80}")
        try:
            where = RunFilter(
                name=name, status=status, tag=tag, workflow_id=workflow_id, waits_for=waits_for,
                attribute=(name_, value) if attribute else None,
                started_from=started_from, started_before=started_before,
            )  # fmt: skip
        except ValueError as error:
            raise Problem(400, str(error)) from error
        page = await backend.list_runs(where, limit, cursor)
        return _json({"runs": list(page.runs), "cursor": page.cursor})

    @application.get(route("/runs/{workflow_id}"), summary="Where a run stands.", response_class=Response)
    async def get_run(workflow_id: str, run_id: str | None = None) -> Response:
        found = await backend.get_run(workflow_id, run_id)
        if found is None:
            raise Problem(404, f"there is no run of workflow id {workflow_id!r}, or it is past its retention")
        return _json(found)

    @application.get(route("/runs/{workflow_id}/history"), summary="Its events.", response_class=Response)
    async def history(
        workflow_id: str,
        run_id: str,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_MAX,
    ) -> Response:
        return _json({"events": list(await backend.history(workflow_id, run_id, after, limit))})

    @application.get(route("/runs/{workflow_id}/tasks"), summary="Its supervised tasks.", response_class=Response)
    async def tasks(workflow_id: str, run_id: str) -> Response:
        return _json({"tasks": list(await backend.list_tasks(workflow_id, run_id))})

    @application.get(route("/counts"), summary="Runs per name and status.", response_class=Response)
    async def counts() -> Response:
        return _json({"counts": await backend.counts()})

    @application.get(route("/announced"), summary="Names that workers have.", response_class=Response)
    async def announced() -> Response:
        found = await backend.announced()
        return _json(Announced([], []) if found is None else found)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise MalformedJson(f"wait: {text!r} is no number of seconds") from None
    return min(max(0.0, seconds), WAIT_SECONDS_MAX)


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Of the query: a route knows only those that FastAPI reads."""
    wait = {"type": "number", "minimum": 0, "maximum": WAIT_SECONDS_MAX}
    if endpoint.reads:
        fields = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in sorted(endpoint.fields)]
        return [
            *fields,
            {"name": "wait", "in": "query", "schema": {**wait, "default": WAIT_SECONDS_MAX}},
            {"name": "follow", "in": "query", "schema": {"type": "boolean", "default": True}},
        ]
    if endpoint.waits:
        return [{"name": "wait", "in": "query", "schema": {**wait, "default": _COMMAND_SECONDS}}]
    return [] if endpoint.end is None else [{"name": "wait", "in": "query", "schema": {**wait, "default": 0}}]


def _still_open(body: Any) -> StillOpen:
    """With the ids by which to ask again: the API may have made them."""
    return StillOpen(
        workflow_id=getattr(body, "workflow_id", ""),
        run_id=getattr(body, "run_id", ""),
        task_id=getattr(body, "task_id", ""),
        update_id=getattr(body, "update_id", ""),
    )


def _code(answer: Struct) -> int:
    """How a run or task ended is an answer like any other; that there is none is not."""
    return STATUS_CODES.get(answer.outcome if isinstance(answer, TaskResult) else getattr(answer, "status", "ok"), 200)


def _json(value: Struct | dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(value), status_code=status, media_type="application/json")


def _problem(status: int, message: str) -> Response:
    return _json({"error": message}, status)
