"""Bytes of messages and of what stores keep.

A message's bytes are those of its family's envelope in Avro binary; docs/adr says why generated code and no Avro
library writes and reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import msgspec

from perdure_schemas import schema
from perdure_schemas.coders import Coders, check_end
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Body, DispatchTask, Message, RunChanged, ScheduleTimer, TaskChanged
from perdure_schemas.primitives import CodecError as CodecError
from perdure_schemas.primitives import integer, read_integer, text

_VERSION = integer(schema.VERSION)
_READABLE = {schema.VERSION, *schema.RELEASES.values()}

_EVENTS_ENCODER = msgspec.msgpack.Encoder()
_EVENTS_DECODER = msgspec.msgpack.Decoder(list[Recorded])

_T = TypeVar("_T")


def encode(message: Message) -> bytes:
    """
    Raises:
        CodecError: a value does not fit its type: an integer over 64 bits, a lone surrogate, an unknown symbol.
    """
    kind = type(message.body)
    try:
        write = _WRITERS.get(kind) or _writer(kind)
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
        read = _READERS.get(data[: 2 + (data[1] >> 1)]) or _reader(data)
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

_BODIES: dict[str, type[Body]] = {body.__name__: body for bodies in schema.BODIES.values() for body in bodies}
_WRITERS: dict[type[Any], Callable[[Message], bytes]] = {}
_READERS: dict[bytes, Callable[[bytes], Message]] = {}
"""By the first bytes: version, size and name of the type.

Both are filled when a type is first seen: to compile them all would slow every start."""


def _writer(body: type[Any]) -> Callable[[Message], bytes]:
    if body.__name__ not in _BODIES:
        raise CodecError(f"{body.__name__} is no message")
    write, _ = _coders(schema.VERSION).of_message(body.__name__, schema.family(body))
    _WRITERS[body] = write
    return write


def _reader(data: bytes) -> Callable[[bytes], Message]:
    version, name = _begin(data)
    _, read = _coders(version).of_message(name, schema.family(_BODIES[name]))
    _READERS[integer(version) + text(name)] = read
    return read


def _begin(data: bytes) -> tuple[int, str]:
    """The version and the type; each is short enough for one byte of size."""
    version = _read_version(data)
    name = data[2 : 2 + (data[1] >> 1)].decode()
    if name not in _BODIES:
        raise CodecError(f"unknown type {name!r}")
    return version, name


def _read_version(data: bytes) -> int:
    version, _ = read_integer(data, 0)
    if version not in _READABLE:
        raise CodecError(f"version {version} of the contract, which this release does not read")
    return version


@cache
def _coders(version: int) -> Coders:
    """Of the schemas that this version was written with, today's or older."""
    return Coders(partial(schema.record, release=schema.release_of(version)), version)


# --- what stores keep ----------------------------------------------------------------------------


def _decode_events(data: bytes) -> list[Recorded]:
    _read_version(data)
    return _EVENTS_DECODER.decode(memoryview(data)[1:])


def _encode_record(value: Any) -> bytes:
    name = type(value).__name__
    write, _ = _coders(schema.VERSION).of_record(name)
    return _VERSION + text(name) + write(value)


def _decode_change(data: bytes) -> RunChanged | TaskChanged:
    if _begin(data)[1] == TaskChanged.__name__:
        return _decode_record(data, TaskChanged)
    return _decode_record(data, RunChanged)


def _decode_record(data: bytes, kind: type[_T]) -> _T:
    version, name = _begin(data)
    if name != kind.__name__:
        raise CodecError(f"a {name} where a {kind.__name__} is expected")
    _, read = _coders(version).of_record(name)
    value: _T
    value, at = read(data, data.decode("latin-1"), len(integer(version) + text(name)))
    check_end(data, at, name)
    return value


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
