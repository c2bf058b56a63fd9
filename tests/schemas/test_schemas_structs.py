"""A struct and the schema of its name say the same: fields, order, types, defaults, and which symbols there are."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import NODEFAULT, Struct

from perdure_schemas import events, messages, schema
from perdure_schemas.coders import STRUCTS
from perdure_schemas.messages import Message
from tests.schemas import oracle

SIMPLE = {str: "string", int: "long", float: "double", bool: "boolean", bytes: "bytes"}
UNIONS = {"Event": events.Event, "Fires": messages.TimerFired | messages.TaskTimerFired}
RECORDS = sorted(set(STRUCTS) - {"Message"})


def differences(struct: type[Struct], record: dict[str, Any]) -> Iterator[str]:
    """What the schema has otherwise than the struct."""
    expected, actual = list(fields_of(struct)), record["fields"]
    names, written = [each["name"] for each in expected], [each["name"] for each in actual]
    if names != written:
        yield f"{record['name']}: the struct has the fields {names}, the schema {written}"
        return
    for mine, theirs in zip(expected, actual, strict=True):
        for what in ("type", "default", "symbols"):
            if json.dumps(mine.get(what, ...), default=str) != json.dumps(theirs.get(what, ...), default=str):
                yield f"{record['name']}.{mine['name']}: {what} {mine.get(what)!r}, in the schema {theirs.get(what)!r}"
        if "unknown" in theirs and theirs["unknown"] not in theirs["symbols"]:
            yield f"{record['name']}.{mine['name']}: an unknown symbol is read as {theirs['unknown']!r}, which is none"


def fields_of(struct: type[Struct]) -> Iterator[dict[str, Any]]:
    """The fields as a schema would have them."""
    hints = typing.get_type_hints(struct)
    for each in msgspec.structs.fields(struct):
        field: dict[str, Any] = {"name": each.name, "type": avro(hints[each.name])}
        if each.default is not NODEFAULT:
            field["default"] = msgspec.to_builtins(each.default)
        elif each.default_factory is not NODEFAULT:
            field["default"] = msgspec.to_builtins(each.default_factory())
        if symbols := list(literals(hints[each.name])):
            field["symbols"] = symbols
        yield field


def avro(hint: Any) -> schema.Schema:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in SIMPLE:
        return SIMPLE[hint]
    for name, union in UNIONS.items():
        if hint == union:
            return name
    if list(literals(hint)):
        return "string"
    if origin is list:
        return {"type": "array", "items": avro(args[0])}
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not types.NoneType)
        return ["null", avro(inner)]
    assert issubclass(hint, Struct)
    return hint.__name__


def literals(hint: Any) -> Iterator[str]:
    """The symbols of a `Literal`, or of a union of them."""
    if typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint)
    elif typing.get_origin(hint) is typing.Union:
        for arg in typing.get_args(hint):
            yield from literals(arg)


@pytest.mark.parametrize("name", RECORDS)
def test_a_struct_is_as_its_schema(name: str) -> None:
    assert list(differences(STRUCTS[name], schema.record(name))) == []


def test_every_schema_has_its_struct() -> None:
    files = {path.stem for path in schema.folder().glob("*/*.avsc")}
    assert files == {*RECORDS, *schema.UNIONS, *schema.ENVELOPES.values()}


@pytest.mark.parametrize("path", sorted(schema.folder().glob("*/*.avsc")), ids=lambda path: path.stem)
def test_a_schema_is_named_as_its_file(path: Any) -> None:
    record = schema.record(path.stem)
    assert (record["type"], record["namespace"], record["name"]) == ("record", schema.NAMESPACE, path.stem)


@pytest.mark.parametrize("family", list(schema.BODIES))
def test_an_envelope_has_one_nullable_member_per_message_after_the_header(family: schema.Family) -> None:
    fields = schema.envelope_fields(family)
    members = [
        {"name": oracle.snake(body.__name__), "type": ["null", body.__name__], "default": None}
        for body in schema.BODIES[family]
    ]
    header = schema.envelope_fields("timers")[: -len(schema.BODIES["timers"])]
    assert fields == header + members


@pytest.mark.parametrize("name", schema.UNIONS)
def test_a_union_has_one_nullable_member_per_type_after_the_name(name: str) -> None:
    first, *members = schema.record(name)["fields"]
    assert (first["name"], first["type"]) == ("type", "string")
    assert members == [
        {"name": oracle.snake(kind.__name__), "type": ["null", kind.__name__], "default": None}
        for kind in typing.get_args(UNIONS[name])
    ]


def test_the_header_is_what_a_message_has() -> None:
    fields = [each for each in schema.envelope_fields("timers") if schema.member_type(each) is None]
    names = {"message_id": "id", "emitted_at": "at"}
    expected = {field["name"]: field for field in fields_of_header()}
    assert {names.get(each["name"], each["name"]) for each in fields} == {*expected, "v", "type"}
    for each in fields:
        if each["name"] not in ("v", "type"):
            mine = expected[names.get(each["name"], each["name"])]
            assert (each["type"], each.get("default", ...)) == (mine["type"], mine.get("default", ...))


def fields_of_header() -> Iterator[dict[str, Any]]:
    hints = typing.get_type_hints(Message)
    for each in msgspec.structs.fields(Message):
        if each.name != "body":
            field = {"name": each.name, "type": avro(hints[each.name])}
            yield field if each.default is NODEFAULT else field | {"default": each.default}


def without(fields: list[dict[str, Any]], name: str) -> None:
    fields[:] = [each for each in fields if each["name"] != name]


def named(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in fields if each["name"] == name)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda fields: without(fields, "failure"), id="a missing field"),
        pytest.param(lambda fields: fields.append({"name": "new", "type": "long", "default": 0}), id="one more"),
        pytest.param(lambda fields: fields.reverse(), id="another order"),
        pytest.param(lambda fields: named(fields, "attempt").update(type="double"), id="another type"),
        pytest.param(lambda fields: named(fields, "result").update(type="Payload"), id="not nullable"),
        pytest.param(lambda fields: named(fields, "attempt").update(default=1), id="another default"),
        pytest.param(lambda fields: named(fields, "attempt").pop("default"), id="no default"),
        pytest.param(lambda fields: named(fields, "outcome")["symbols"].remove("skipped"), id="a missing symbol"),
        pytest.param(lambda fields: named(fields, "outcome").pop("symbols"), id="no symbols"),
        pytest.param(lambda fields: named(fields, "outcome").update(unknown="lost"), id="a default that is no symbol"),
    ],
)
def test_a_difference_is_found(change: Callable[[list[dict[str, Any]]], object]) -> None:
    record = json.loads(json.dumps(schema.record("CommandSettled")))
    assert list(differences(events.CommandSettled, record)) == []
    change(record["fields"])
    assert len(list(differences(events.CommandSettled, record))) == 1
