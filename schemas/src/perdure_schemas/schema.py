"""The Avro schemas: one file per record in `avro/`, composed into one envelope per topic family."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from perdure_schemas import messages

Schema: TypeAlias = Any
"""A schema as JSON has it: a name, a list (union) or an object."""

VERSION = 1
"""`v` of what this code writes: it names the exact schemas, without which Avro cannot be read. One `v` has one set of
records; only the envelopes of a `v` may get more members, at their end."""
RELEASES = {"0.1": 1}
"""The `v` of each release, oldest first. Its schemas lie in `avro/released/`, never to be changed."""
NAMESPACE = "perdure"

Family = Literal["workflow-engine", "task-engine", "worker", "timers", "events"]

BODIES: dict[Family, tuple[type[Any], ...]] = {
    "workflow-engine": get_args(messages.WorkflowMessage),
    "task-engine": get_args(messages.TaskMessage),
    "worker": get_args(messages.WorkerMessage),
    "timers": get_args(messages.TimerMessage),
    "events": get_args(messages.EventMessage),
}
"""The message types of each family."""

ENVELOPES: dict[Family, str] = {
    "workflow-engine": "WorkflowEngineEnvelope",
    "task-engine": "TaskEngineEnvelope",
    "worker": "WorkerEnvelope",
    "timers": "TimersEnvelope",
    "events": "EventsEnvelope",
}
"""The record of each family's envelope."""
UNIONS = ("Event", "Fires")
"""Records that stand for a tagged union: a type name, and one nullable member per type."""
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def folder() -> Path:
    """Where the schemas lie: in the installed package, or beside `src` in a checkout."""
    packaged = Path(__file__).with_name("avro")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "avro"


def compose(root: Schema, release: str | None = None) -> Schema:
    """`root` with every record it names written out where it is first used: complete in itself."""
    return _inline(root, release, set())


def envelope_schema(family: Family) -> dict[str, Any]:
    """The schema to register with a broker for the topics of this family."""
    composed: dict[str, Any] = compose(ENVELOPES[family])
    return composed


@cache
def record(name: str, release: str | None = None) -> dict[str, Any]:
    """The file of one record as it is written, today or in a release: other records by name."""
    parsed: dict[str, Any] = json.loads(_files(release)[name].read_text("utf-8"))
    return parsed


@cache
def _files(release: str | None) -> dict[str, Path]:
    pattern = "*/*.avsc" if release is None else f"released/{release}/*.avsc"
    return {path.stem: path for path in folder().glob(pattern)}


def release_of(version: int) -> str | None:
    """Whose schemas read a `v`: the last release that wrote it; `None`: today's.

    Raises:
        KeyError: none of them.
    """
    if version == VERSION:
        return None
    known = {v: release for release, v in RELEASES.items()}
    return known[version]


def family(body: type[Any]) -> Family:
    """The family a message type belongs to.

    Raises:
        KeyError: it is no message.
    """
    for each, bodies in BODIES.items():
        if body in bodies:
            return each
    raise KeyError(body.__name__)


def envelope_fields(family: Family) -> list[dict[str, Any]]:
    """The fields of an envelope: the header, then one nullable member per message."""
    fields: list[dict[str, Any]] = record(ENVELOPES[family])["fields"]
    return fields


def member_type(field: dict[str, Any]) -> str | None:
    """The record a field of an envelope (or of `Event`, or `Fires`) holds; `None` for a field of the header."""
    match field["type"]:
        case ["null", str(name)] if name not in _PRIMITIVES:
            return name
        case _:
            return None


def _inline(schema: Schema, release: str | None, seen: set[str]) -> Schema:
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return schema
        if schema in seen:
            return f"{NAMESPACE}.{schema}"
        return _inline(record(schema, release), release, seen)
    if isinstance(schema, list):
        return [_inline(branch, release, seen) for branch in schema]
    if schema["type"] == "array":
        return {**schema, "items": _inline(schema["items"], release, seen)}
    if schema["type"] != "record":
        return schema
    seen.add(schema["name"])
    fields = [{**field, "type": _inline(field["type"], release, seen)} for field in schema["fields"]]
    return {**schema, "fields": fields}
