"""Bytes of messages and of what stores keep.

A message's bytes are those of its family's envelope in Avro binary. Only the record of the one member that is
set goes through the Avro library; the nulls around it are constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from typing import Any, TypeVar

import msgspec
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from msgspec import Struct

from perdure_schemas import schema
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Body, DispatchTask, Message, RunChanged, ScheduleTimer, TaskChanged

_NULL = b"\x00"
"""Avro's index of the first branch of a union, `null` in all of ours."""
_SET = b"\x02"
"""Avro's index of the second branch."""
_VERSION = bytes([schema.VERSION << 1])
"""The version as Avro writes a small int."""
_NATIVE = (bytes,)
"""Left as they are by `to_builtins`."""

_EVENTS_ENCODER = msgspec.msgpack.Encoder()
_EVENTS_DECODER = msgspec.msgpack.Decoder(list[Recorded])

_T = TypeVar("_T")
_Fields = dict[str, Any]


class CodecError(ValueError):
    """These bytes are no message of this contract, or this message cannot be written in it."""


class _Type:
    """How one type of message is written and read: header, constant nulls, body."""

    __slots__ = ("after", "before", "body", "from_wire", "name", "schema", "to_wire")

    def __init__(self, body: type[Any], family: schema.Family) -> None:
        self.body = body
        self.name = body.__name__
        fields = schema.envelope_fields(family)
        header = [field for field in fields if schema.member_type(field) is None]
        members = [name for field in fields if (name := schema.member_type(field)) is not None]
        position = members.index(self.name)
        self.before = _NULL * position + _SET
        self.after = _NULL * (len(members) - position - 1)
        nulls = {"type": "fixed", "name": "Nulls", "size": len(self.before)}
        self.schema = _parse([*header, {"name": "before", "type": nulls}, {"name": "body", "type": self.name}])
        self.to_wire, self.from_wire = _SHAPES.get(self.name, (_unchanged, _unchanged))


def encode(message: Message) -> bytes:
    """
    Raises:
        CodecError: a value does not fit its type: an integer over 64 bits, a lone surrogate.
    """
    of = _type(type(message.body))
    fields = {
        "v": schema.VERSION,
        "type": of.name,
        "message_id": message.id,
        "namespace": message.namespace,
        "key": message.key,
        "emitted_at": message.at,
        "emitter": message.emitter,
        "causation_id": message.causation_id,
        "traceparent": message.traceparent,
        "before": of.before,
        "body": of.to_wire(msgspec.to_builtins(message.body, builtin_types=_NATIVE)),
    }
    return _write(of.schema, fields) + of.after


def decode(data: bytes) -> Message:
    """
    Raises:
        CodecError: whatever else than a message of this version and of a known type.
    """
    return _guarded(_decode, data)


def body_type(message: Message) -> str:
    """The `type` of the header."""
    return type(message.body).__name__


def encode_events(events: Sequence[Recorded]) -> bytes:
    """A piece of a history, as a store keeps it: MessagePack by field names, which only our own code reads.

    Avro took 145 µs for the two events of a small commit, this takes one; a commit is on every run's way.
    """
    return _VERSION + _EVENTS_ENCODER.encode(events)


def decode_events(data: bytes) -> list[Recorded]:
    """
    Raises:
        CodecError: these bytes are not from `encode_events`.
    """
    return _guarded(_decode_events, data)


def encode_timer(timer: ScheduleTimer) -> bytes:
    return _encode_record(timer)


def decode_timer(data: bytes) -> ScheduleTimer:
    """
    Raises:
        CodecError: these bytes are not from `encode_timer`.
    """
    decoded: ScheduleTimer = _guarded(lambda data: _decode_record(data, (ScheduleTimer,)), data)
    return decoded


def encode_change(change: RunChanged | TaskChanged) -> bytes:
    return _encode_record(change)


def decode_change(data: bytes) -> RunChanged | TaskChanged:
    """
    Raises:
        CodecError: these bytes are not from `encode_change`.
    """
    decoded: RunChanged | TaskChanged = _guarded(lambda data: _decode_record(data, (RunChanged, TaskChanged)), data)
    return decoded


def encode_task(task: DispatchTask) -> bytes:
    return _encode_record(task)


def decode_task(data: bytes) -> DispatchTask:
    """
    Raises:
        CodecError: these bytes are not from `encode_task`.
    """
    decoded: DispatchTask = _guarded(lambda data: _decode_record(data, (DispatchTask,)), data)
    return decoded


# --- messages ------------------------------------------------------------------------------------


def _decode(data: bytes) -> Message:
    of = _type(_BODY_BY_NAME[_type_name(data)])
    stream = BytesIO(data)
    fields: Any = schemaless_reader(stream, of.schema, None)
    if fields["before"] != of.before:
        raise CodecError(f"a {of.name} whose envelope has another member set")
    # Fewer nulls than ours: written before a type was added to the envelope. More: after.
    if data[stream.tell() :].strip(_NULL):
        raise CodecError(f"bytes after the end of a {of.name}")
    return Message(
        id=fields["message_id"],
        namespace=fields["namespace"],
        key=fields["key"],
        at=fields["emitted_at"],
        body=msgspec.convert(of.from_wire(fields["body"]), of.body),
        emitter=fields["emitter"],
        causation_id=fields["causation_id"],
        traceparent=fields["traceparent"],
    )


def _type_name(data: bytes) -> bytes:
    """The name after the version; both are short enough for one byte of length each."""
    if data[:1] != _VERSION:
        raise CodecError(f"not version {schema.VERSION} of the contract")
    end = 2 + (data[1] >> 1)
    name = data[2:end]
    if name not in _BODY_BY_NAME:
        raise CodecError(f"unknown type {name.decode('utf-8', 'backslashreplace')!r}")
    return name


@cache
def _type(body: type[Any]) -> _Type:
    for family, bodies in schema.BODIES.items():
        if body in bodies:
            return _Type(body, family)
    raise CodecError(f"{body.__name__} is no message")


_BODY_BY_NAME: dict[bytes, type[Body]] = {
    body.__name__.encode(): body for bodies in schema.BODIES.values() for body in bodies
}

# --- what stores keep ----------------------------------------------------------------------------


def _decode_events(data: bytes) -> list[Recorded]:
    if data[:1] != _VERSION:
        raise CodecError(f"not version {schema.VERSION} of the contract")
    return _EVENTS_DECODER.decode(memoryview(data)[1:])


def _encode_record(value: Struct) -> bytes:
    name = type(value).__name__
    to_wire, _ = _SHAPES.get(name, (_unchanged, _unchanged))
    body = to_wire(msgspec.to_builtins(value, builtin_types=_NATIVE))
    return _write(_record_schema(name), {"v": schema.VERSION, "type": name, "body": body})


def _decode_record(data: bytes, allowed: Sequence[type[Any]]) -> Any:
    name = _type_name(data).decode()
    for kind in allowed:
        if kind.__name__ == name:
            stream = BytesIO(data)
            fields: Any = schemaless_reader(stream, _record_schema(name), None)
            _check_end(stream, data)
            _, from_wire = _SHAPES.get(name, (_unchanged, _unchanged))
            return msgspec.convert(from_wire(fields["body"]), kind)
    raise CodecError(f"a {name} is not expected here")


@cache
def _record_schema(name: str) -> schema.Schema:
    return _parse([{"name": "v", "type": "int"}, {"name": "type", "type": "string"}, {"name": "body", "type": name}])


# --- shapes: where a struct and its Avro record differ ----------------------------------------------


def _unchanged(fields: _Fields) -> _Fields:
    return fields


def _to_union(tagged: _Fields) -> _Fields:
    name = tagged["type"]
    return {"type": name, _MEMBERS[name]: tagged}


def _from_union(union: _Fields) -> _Fields:
    name = union["type"]
    tagged: _Fields = union[_MEMBERS[name]]
    tagged["type"] = name
    return tagged


def _events_at(field: str, change: Callable[[_Fields], _Fields]) -> Callable[[_Fields], _Fields]:
    def reshape(fields: _Fields) -> _Fields:
        for recorded in fields[field]:
            recorded["event"] = change(recorded["event"])
        return fields

    return reshape


def _fires(change: Callable[[_Fields], _Fields]) -> Callable[[_Fields], _Fields]:
    def reshape(fields: _Fields) -> _Fields:
        fields["fires"] = change(fields["fires"])
        return fields

    return reshape


_MEMBERS: dict[str, str] = {
    name: field["name"]
    for union in ("Event", "Fires")
    for field in schema.record(union)["fields"]
    if (name := schema.member_type(field)) is not None
}
_SHAPES: dict[str, tuple[Callable[[_Fields], _Fields], Callable[[_Fields], _Fields]]] = {
    "StartWorkflow": (_events_at("signals", _to_union), _events_at("signals", _from_union)),
    "RunWorkflowTask": (_events_at("events", _to_union), _events_at("events", _from_union)),
    "HistoryPage": (_events_at("events", _to_union), _events_at("events", _from_union)),
    "RunChanged": (_events_at("events", _to_union), _events_at("events", _from_union)),
    "ScheduleTimer": (_fires(_to_union), _fires(_from_union)),
}

# --- Avro ----------------------------------------------------------------------------------------


def _parse(fields: list[Any]) -> schema.Schema:
    return parse_schema(
        schema.compose({"type": "record", "namespace": schema.NAMESPACE, "name": "Wire", "fields": fields})
    )


def _write(parsed: schema.Schema, fields: Any) -> bytes:
    stream = BytesIO()
    try:
        schemaless_writer(stream, parsed, fields)
    except (ValueError, TypeError, OverflowError) as error:
        raise CodecError(str(error)) from error
    return stream.getvalue()


def _check_end(stream: BytesIO, data: bytes) -> None:
    if stream.tell() != len(data):
        raise CodecError("bytes after the end")


def _guarded(decoder: Callable[[bytes], _T], data: bytes) -> _T:
    """The Avro library raises all sorts of things on garbage; callers see one."""
    try:
        return decoder(data)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"{type(error).__name__}: {error}") from error
