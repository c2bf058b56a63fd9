"""The OpenAPI document of the API: what FastAPI knows of the routes, and what bodies, fields and answers mean."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from perdure._http.blobs import Gone
from perdure._http.endpoints import ENDPOINTS, PREFIX, Endpoint
from perdure._http.json_schema import Components, Schema
from perdure._http.meanings import PATH
from perdure._http.operations import (
    BAD_REQUEST,
    CODES,
    DEFECT,
    NOT_FOUND,
    OPEN,
    OPERATIONS,
    TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    Operation,
    parameter_meaning,
)
from perdure._http.shapes import Refusal, StillOpen
from perdure_schemas.common import Query
from perdure_schemas.messages import (
    CommandReply,
    QueryResult,
    QueryRun,
    RunResult,
    StartReply,
    TaskResult,
    UpdateResult,
)

_ADDED: dict[type[Any], dict[str, Any]] = {
    StartReply: {"warning": str, "end": RunResult},
    CommandReply: {"warning": str},
    TaskResult: {"warning": str},
    QueryResult: {"detail": str},
    UpdateResult: {"detail": str},
}
"""Fields that the API adds to an answer where they say something."""
_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Names the request. The same request again, with the same key, is done once.",
}
_KEYED = frozenset({
    "startRun", "updateRun", "runTask",
    "cancelRun", "terminateRun", "pauseRun", "unpauseRun", "resumeRun", "resetRun", "moveRun",
})  # fmt: skip
"""Where the key stands for an id that is left out, or is what an engine knows a repetition by."""


def document(application: FastAPI) -> Schema:
    """What `GET /api/v1/openapi.json` gives."""
    made: Schema = get_openapi(
        title="Perdure",
        version="1",
        summary="Start durable workflows, talk to them, and look at where they stand.",
        description="Times are epoch milliseconds, durations milliseconds unless a name or text says seconds.",
        routes=application.routes,
    )
    components = Components()
    for kind, fields in _ADDED.items():
        components.of(kind)
        components.more(kind, fields)
    messages = {("get" if each.reads else "post", each.path): each for each in ENDPOINTS}
    for path, methods in made["paths"].items():
        for method, told in methods.items():
            key = method, path.removeprefix(PREFIX)
            operation, body = OPERATIONS[key], _body(components, OPERATIONS[key], messages.get(key))
            methods[method] = {
                "operationId": operation.id,
                "summary": told["summary"],
                "description": operation.does,
                "parameters": _parameters(path, told, operation),
                **({"requestBody": body} if body else {}),
                "responses": _answers(components, operation, large=body is not None),
            }
    made["components"] = {
        "schemas": dict(sorted(components.schemas.items())),
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer", "description": "Where the API has been given a token."}
        },
    }
    made["security"] = [{"token": []}, {}]
    return made


def _parameters(path: str, told: Schema, operation: Operation) -> list[Schema]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": PATH[name]}
        for name in re.findall(r"{(\w+)}", path)
    ]
    for each in told.get("parameters", ()):
        if each["in"] == "query":
            found.append({
                "name": each["name"], "in": "query", "required": each.get("required", False),
                "schema": _without_null(each["schema"]), "description": parameter_meaning(operation, each["name"]),
            })  # fmt: skip
    return [*found, _KEY] if operation.id in _KEYED else found


def _without_null(schema: Schema) -> Schema:
    """A parameter is there or not."""
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return kinds[0] if kinds else {name: value for name, value in schema.items() if name != "title"}


def _body(components: Components, operation: Operation, endpoint: Endpoint | None) -> Schema | None:
    if operation.id == "putBlob":
        return {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    if operation.body is not None:
        schema = components.of(operation.body)
    elif endpoint is not None and not endpoint.reads:
        kinds = (endpoint.body, Query) if endpoint.body is QueryRun else (endpoint.body,)
        schema = components.body(kinds, endpoint.fields, operation.needed)
    else:
        return None
    return {"required": bool(operation.needed), "content": {"application/json": {"schema": schema}}}


def _answers(components: Components, operation: Operation, *, large: bool) -> Schema:
    refusal = components.of(Refusal)
    if operation.reply is None:
        found = {operation.success: _answer("application/octet-stream", {"type": "string"}, operation.success)}
    else:
        reply = components.of(operation.reply)
        found = {operation.success: _json(reply, operation.success)}
        for code in (NOT_FOUND, *operation.refusals):
            found[code] = _json({"anyOf": [reply, refusal]} if code in operation.refusals else refusal, code)
    if operation.waits:
        found[OPEN] = _json(components.of(StillOpen), OPEN)
    if operation.id == "getBlob":
        found[NOT_FOUND] = _json({"anyOf": [components.of(Gone), refusal]}, NOT_FOUND)
    for code in (BAD_REQUEST, UNAUTHORIZED, *((TOO_LARGE,) if large else ()), DEFECT, UNAVAILABLE):
        found[code] = _json(refusal, code)
    return {str(code): found[code] for code in sorted(found)}


def _json(schema: Schema, code: int) -> Schema:
    return _answer("application/json", schema, code)


def _answer(kind: str, schema: Schema, code: int) -> Schema:
    return {"description": CODES[code], "content": {kind: {"schema": schema}}}
