"""The Avro library with the whole envelope: what the codec's bytes are compared with, made without the codec."""

from __future__ import annotations

import re
from functools import cache
from io import BytesIO
from typing import Any

import msgspec
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from msgspec import Struct

from perdure_schemas import schema
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def plain(value: Any) -> Any:
    """What the Avro library writes for a struct, and reads."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, Struct):
        return value
    fields = {field.name: plain(getattr(value, field.name)) for field in msgspec.structs.fields(value)}
    for union in ("event", "fires"):
        if union in fields:
            name = type(getattr(value, union)).__name__
            fields[union] = {"type": name, snake(name): fields[union]}
    return fields


def envelope(message: Message) -> dict[str, Any]:
    name = type(message.body).__name__
    return {
        "v": schema.VERSION,
        "type": name,
        "message_id": message.id,
        "namespace": message.namespace,
        "key": message.key,
        "emitted_at": message.at,
        "emitter": message.emitter,
        "causation_id": message.causation_id,
        "traceparent": message.traceparent,
        snake(name): plain(message.body),
    }


def readable(value: Message | Recorded) -> Any:
    """As golden files show it."""
    return msgspec.to_builtins(envelope(value) if isinstance(value, Message) else plain(value))


def write(message: Message) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, parsed(schema.family(type(message.body))), envelope(message))
    return stream.getvalue()


NULLS = b"\x00" * 100
"""More than any envelope has members."""


def read(data: bytes, family: schema.Family) -> dict[str, Any]:
    """The fields that are set, without the members that are not; nulls at the end may be missing, or too many.

    Raises:
        ValueError: there is something else after the end. The library raises other errors for other garbage.
    """
    stream = BytesIO(data + NULLS)
    fields: Any = schemaless_reader(stream, parsed(family), None)
    if stream.read().strip(b"\x00"):
        raise ValueError("bytes after the end")
    return {name: _without_unset(value) for name, value in fields.items() if not _is_unset(family, name, value)}


def known(node: schema.Schema, value: Any) -> Any:
    """The value of this type with texts that are none of an enum's replaced as the schema says."""
    match node:
        case ["null", inner]:
            return None if value is None else known(inner, value)
        case {"type": "array", "items": items}:
            return [known(items, each) for each in value]
        case str(name) if isinstance(value, dict):
            fields = {each["name"]: each for each in schema.record(name)["fields"]}
            return {field: _known_field(fields[field], each) for field, each in value.items()}
        case _:
            return value


def _known_field(field: dict[str, Any], value: Any) -> Any:
    if "unknown" in field and value not in field["symbols"]:
        return field["unknown"]
    return known(field["type"], value)


def _is_unset(family: schema.Family, name: str, value: Any) -> bool:
    return value is None and name in members(family)


def _without_unset(value: Any) -> Any:
    """Unions within records are written with all their members."""
    if isinstance(value, list):
        return [_without_unset(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {name: _without_unset(inner) for name, inner in value.items()}
    for union in ("event", "fires"):
        if union in fields:
            fields[union] = {name: inner for name, inner in fields[union].items() if inner is not None}
    return fields


@cache
def members(family: schema.Family) -> set[str]:
    return {each["name"] for each in schema.envelope_fields(family) if schema.member_type(each)}


@cache
def parsed(family: schema.Family) -> Any:
    return parse_schema(schema.envelope_schema(family))
