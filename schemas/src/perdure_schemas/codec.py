"""Bytes of messages and of what stores keep.

A message's bytes are those of its family's envelope in Avro binary; docs/adr says why generated code and no Avro
library writes and reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from perdure_schemas import schema
from perdure_schemas.coders import Coders, check_end
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Body, DispatchTask, Message, RunChanged, ScheduleTimer, TaskChanged
from perdure_schemas.primitives import CodecError as CodecError
from perdure_schemas.primitives import integer, text

_VERSION = integer(schema.VERSION)

_EVENTS_ENCODER = msgspec.msgpack.Encoder()
_EVENTS_DECODER = msgspec.msgpack.Decoder(list[Recorded])

_CODERS = Coders(schema.record, schema.VERSION)

_T = TypeVar("_T")


def encode(message: Message) -> bytes:
    """
    Raises:
        CodecError: a value does not fit its type: an integer over 64 bits, a lone surrogate, an unknown symbol.
    """
    kind = type(message.body)
    write = _WRITERS.get(kind) or _message(kind)[0]
    try:
        return write(message)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"cannot be written as a {kind.__name__}: {type(error).__name__}: {error}") from error


def decode(data: bytes) -> Message:
    """
    Raises:
        CodecError: whatever else than a message of this version and of a known type.
    """
    try:
        read = _READERS.get(data[1 : 2 + (data[1] >> 1)])
        if read is None or data[:1] != _VERSION:
            read = _message(_BODIES[_type_name(data)])[1]
        return read(data)
    except Exception as error:
        raise _refusal(error) from error


def body_type(message: Message) -> str:
    """The `type` of the header."""
    return type(message.body).__name__


def encode_events(events: Sequence[Recorded]) -> bytes:
    """A piece of a history, as a store keeps it: MessagePack by field names, which only our own code reads.

    Raises:
        CodecError: a failure has causes without end.
    """
    try:
        return _VERSION + _EVENTS_ENCODER.encode(events)
    except RecursionError as error:
        raise CodecError(str(error)) from error


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
    return _guarded(lambda data: _decode_record(data, ScheduleTimer), data)


def encode_change(change: RunChanged | TaskChanged) -> bytes:
    return _encode_record(change)


def decode_change(data: bytes) -> RunChanged | TaskChanged:
    """
    Raises:
        CodecError: these bytes are not from `encode_change`.
    """
    return _guarded(_decode_change, data)


def encode_task(task: DispatchTask) -> bytes:
    return _encode_record(task)


def decode_task(data: bytes) -> DispatchTask:
    """
    Raises:
        CodecError: these bytes are not from `encode_task`.
    """
    return _guarded(lambda data: _decode_record(data, DispatchTask), data)


# --- messages ------------------------------------------------------------------------------------

_BODIES: dict[bytes, type[Body]] = {
    body.__name__.encode(): body for bodies in schema.BODIES.values() for body in bodies
}
_WRITERS: dict[type[Any], Callable[[Message], bytes]] = {}
_READERS: dict[bytes, Callable[[bytes], Message]] = {}
"""By size and name of the type. Filled when it is first seen: to compile them all would slow every start."""


def _type_name(data: bytes) -> bytes:
    """The name after the version; both are short enough for one byte of length each."""
    if data[:1] != _VERSION:
        raise CodecError(f"not version {schema.VERSION} of the contract")
    name = data[2 : 2 + (data[1] >> 1)]
    if name not in _BODIES:
        raise CodecError(f"unknown type {name.decode('utf-8', 'backslashreplace')!r}")
    return name


def _message(body: type[Any]) -> tuple[Callable[[Message], bytes], Callable[[bytes], Message]]:
    for family, bodies in schema.BODIES.items():
        if body in bodies:
            made = _CODERS.of_message(body.__name__, family)
            _WRITERS[body], _READERS[text(body.__name__)] = made
            return made
    raise CodecError(f"{body.__name__} is no message")


# --- what stores keep ----------------------------------------------------------------------------


def _decode_events(data: bytes) -> list[Recorded]:
    if data[:1] != _VERSION:
        raise CodecError(f"not version {schema.VERSION} of the contract")
    return _EVENTS_DECODER.decode(memoryview(data)[1:])


def _encode_record(value: Any) -> bytes:
    begin, write, _ = _record(type(value).__name__)
    return begin + write(value)


def _decode_change(data: bytes) -> RunChanged | TaskChanged:
    if _type_name(data) == b"TaskChanged":
        return _decode_record(data, TaskChanged)
    return _decode_record(data, RunChanged)


def _decode_record(data: bytes, kind: type[_T]) -> _T:
    name = _type_name(data).decode()
    if name != kind.__name__:
        raise CodecError(f"a {name} where a {kind.__name__} is expected")
    begin, _, read = _record(name)
    value: _T
    value, at = read(data, data.decode("latin-1"), len(begin))
    check_end(data, at, name)
    return value


@cache
def _record(name: str) -> tuple[bytes, Callable[[Any], bytes], Callable[[bytes, str, int], tuple[Any, int]]]:
    write, read = _CODERS.of_record(name)
    return _VERSION + text(name), write, read


def _guarded(decoder: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        return decoder(data)
    except Exception as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> CodecError:
    """Garbage makes readers raise all sorts of things; callers see one."""
    match error:
        case CodecError():
            return error
        case IndexError():
            return CodecError("the bytes end within a value")
        case _:
            return CodecError(f"{type(error).__name__}: {error}")
