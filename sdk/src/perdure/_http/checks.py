"""What the API refuses of a request that has the right form: what clients in Python refuse before they send it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from fastapi import Request
from msgspec import Struct

from perdure._duration import DURATION_MAX_SECONDS
from perdure._http.forms import MalformedJson
from perdure._names import check_workflow_id, is_name
from perdure_schemas.messages import DispatchTask, StartWorkflow

B = TypeVar("B")
_LENGTH = "_ms"
"""How the names of durations end."""


def checked(body: B, given: Mapping[str, Any]) -> B:
    """The message that was made of what was given.

    Raises:
        MalformedJson: an id or name that cannot be one, an option that nobody knows, or a duration that is none.
    """
    workflow_id = getattr(body, "workflow_id", None)
    if isinstance(workflow_id, str):
        try:
            check_workflow_id(workflow_id)
        except ValueError as error:
            raise MalformedJson(f"workflow_id: {error}") from None
    if isinstance(body, StartWorkflow | DispatchTask):
        if not is_name(body.name):
            raise MalformedJson(f"name: {body.name!r:.80} cannot name a workflow or task")
        _check_options(body.options, given.get("options"), "options")
    return body


def _check_options(made: Struct, given: Any, where: str) -> None:
    """Of a record of options, and of those within it."""
    known = sorted(made.__struct_fields__)
    if isinstance(given, dict) and (unknown := given.keys() - set(known)):
        raise MalformedJson(f"{where}: unknown: {', '.join(sorted(unknown))}; known here: {', '.join(known)}")
    for name in known:
        value, told = getattr(made, name), f"{where}.{name}"
        if name.endswith(_LENGTH) and value is not None and not 0 <= value <= DURATION_MAX_SECONDS * 1_000:
            raise MalformedJson(f"{told}: a duration is 0 to {DURATION_MAX_SECONDS * 1_000} milliseconds, not {value}")
        if isinstance(value, Struct) and isinstance(given, dict) and _is_record(type(made), name, type(value)):
            _check_options(value, given.get(name), told)


def _is_record(kind: type[Struct], name: str, found: type) -> bool:
    """Payloads are no records of ours: what is in one is the caller's own."""
    return bool(get_type_hints(kind)[name] is found)


async def refuse_unknown_parameters(request: Request) -> None:
    """Of the query: one that is mistyped would be left out without a word, and a list not be the one asked for.

    Raises:
        MalformedJson: the path has no such parameter.
    """
    route = request.scope["route"]
    described = (route.openapi_extra or {}).get("parameters", ())
    known = {each.alias for each in route.dependant.query_params} | {each["name"] for each in described}
    if unknown := request.query_params.keys() - known:
        has = f"known here: {', '.join(sorted(known))}" if known else "there are none here"
        raise MalformedJson(f"unknown parameters: {', '.join(sorted(unknown))}; {has}")
