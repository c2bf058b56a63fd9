"""Values to JSON and back, by type hints. No class name travels, so any language can read the other end.

Two codecs write the same JSON: msgspec for what it knows (scalars, containers, dataclasses, datetime, Decimal,
Enum, UUID, bytes, ...), because calls are a hot path, and pydantic for all else; pydantic is only imported
when a hint needs it.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections import abc
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.errors import PayloadTooLarge, SerializationError
from perdure_schemas.common import NULL, Payload

PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""Of the arguments of one call, or one result. A payload is held in memory whole by worker, engine and client, several
at a time: larger ones belong in a store of the user's, and a reference to them in the payload."""

_SCALARS: frozenset[Any] = frozenset({Any, object, int, str, float, bool, bytes, type(None), None})
_LIBRARY_SCALARS = frozenset({
    "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal", "uuid.UUID",
})  # fmt: skip
_CONTAINERS: frozenset[Any] = frozenset({
    list, dict, tuple, set, frozenset, typing.Union, types.UnionType, typing.Literal,
    abc.Sequence, abc.Mapping, abc.Collection, abc.Iterable, abc.Set, abc.MutableSequence, abc.MutableMapping,
})  # fmt: skip


class Codec:
    """Encodes and decodes values of one type hint."""

    __slots__ = ("decode", "encode", "hint", "plain")

    def __init__(self, hint: Any) -> None:
        """Raises TypeError when no JSON form is known for the hint."""
        self.hint = hint
        self.encode: Callable[[Any], bytes]
        self.decode: Callable[[bytes], Any]
        self.plain = is_plain(hint)
        """Whether msgspec does it."""
        if self.plain:
            try:
                self.decode = msgspec.json.Decoder(hint).decode
                self.encode = _ENCODER.encode
                return
            except TypeError:  # unions it cannot tell apart in JSON; pydantic tries them one by one
                self.plain = False
        self.encode, self.decode = _pydantic_codec(hint)


def _encode_other(value: Any) -> Any:
    """For values below a hint that says nothing, such as `Any` or `dict`."""
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        return serializer.to_python(value, mode="json")
    if hasattr(value, "_asyncio_future_blocking"):
        raise TypeError("it is a Deferred, not its value: await it first")
    raise TypeError(f"no JSON form is known for {type(value).__module__}.{type(value).__qualname__}")


_ENCODER = msgspec.json.Encoder(enc_hook=_encode_other)


def _pydantic_codec(hint: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import pydantic  # slow to import: 80 to 150 ms, and most programs do without

    config: pydantic.ConfigDict = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint, config=config)
    except pydantic.errors.PydanticSchemaGenerationError as error:
        raise TypeError(f"no JSON form is known for {describe(hint)}") from error
    except pydantic.PydanticUserError as error:
        if error.code != "type-adapter-config-unused":  # models have a config of their own
            raise TypeError(str(error)) from error
        adapter = pydantic.TypeAdapter(hint)

    def encode(value: Any) -> bytes:
        return adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")

    return encode, adapter.validate_json


def is_plain(hint: Any, _open: frozenset[Any] = frozenset()) -> bool:
    """Whether msgspec encodes values of `hint` as pydantic would, and decodes them alike."""
    if type(hint).__name__ == "TypeAliasType":  # `type X = ...`, of Python 3.12
        hint = hint.__value__
    origin = typing.get_origin(hint)
    if origin is not None:
        arguments = typing.get_args(hint)
        if origin is typing.Literal:
            return True
        return origin in _CONTAINERS and all(is_plain(a, _open) for a in arguments if a is not Ellipsis)
    if not isinstance(hint, type):
        return hint is Any or hint is None
    if hint in _SCALARS or hint in _CONTAINERS or f"{hint.__module__}.{hint.__qualname__}" in _LIBRARY_SCALARS:
        return True
    if hint in _open:  # a recursive type is as plain as the rest of it
        return True
    return _is_plain_class(hint, _open | {hint})


def _is_plain_class(cls: type, _open: frozenset[Any]) -> bool:
    if issubclass(cls, (enum.Enum, msgspec.Struct)):
        return True
    if typing.is_typeddict(cls):
        return all(is_plain(h, _open) for h in typing.get_type_hints(cls).values())
    if not dataclasses.is_dataclass(cls) or hasattr(cls, "__pydantic_serializer__"):
        return False
    fields = dataclasses.fields(cls)
    if getattr(cls, "__parameters__", ()) or any(not f.init or f.name.startswith("_") for f in fields):
        return False  # msgspec leaves such fields out
    hints = typing.get_type_hints(cls, include_extras=True)
    return all(is_plain(hints[f.name], _open) for f in fields)


def describe(hint: Any) -> str:
    """A type hint as a user writes it."""
    return hint.__qualname__ if isinstance(hint, type) and typing.get_origin(hint) is None else str(hint)


# --- single values: results, signals, progress --------------------------------------------------------

_CODECS: dict[Any, Codec] = {}
_CODECS_MAX = 10_000
"""Hints are few per program, but may be made at run time: then the cache starts anew rather than grow."""


def codec(hint: Any) -> Codec:
    """The codec of a hint, made once."""
    try:
        found = _CODECS.get(hint)
    except TypeError:  # an unhashable Annotated
        return Codec(hint)
    if found is None:
        if len(_CODECS) >= _CODECS_MAX:
            _CODECS.clear()
        found = _CODECS[hint] = Codec(hint)
    return found


def encode(value: Any, hint: Any = Any, what: str = "value") -> Payload:
    """One value as a payload; `what` names it in errors.

    Raises:
        SerializationError: it is not of its type, or has no JSON form.
        PayloadTooLarge: it is over PAYLOAD_BYTES_MAX.
    """
    if value is None:
        return NULL
    if hint is bytes and type(value) is bytes:
        return within_limit(Payload("bytes", value), what)
    try:
        chosen = codec(hint)
        data = chosen.encode(value)
        chosen.decode(data)
    except Exception as error:
        raise serialization_error(what, value, hint, error) from error
    return within_limit(Payload("json", data), what)


def decode(payload: Payload | None, hint: Any = Any, what: str = "value") -> Any:
    """The value in a payload.

    Raises:
        SerializationError: it is not of that type.
    """
    if payload is None or payload.encoding == "null":
        return None
    if payload.encoding == "bytes":
        return payload.data
    try:
        return codec(hint).decode(payload.data)
    except Exception as error:
        raise SerializationError(f"{what} cannot be read as {describe(hint)}: {_first_line(error)}") from error


def admits_none(hint: Any) -> bool:
    """Whether None is a value of the hint."""
    try:
        codec(hint).decode(b"null")
    except Exception:
        return False
    return True


def serialization_error(what: str, value: Any, hint: Any, error: Exception) -> SerializationError:
    """The error for a value that does not survive the way to JSON and back."""
    given = type(value).__qualname__
    return SerializationError(
        f"{what} is a {given}, which cannot travel as {describe(hint)}: {_first_line(error)}. "
        "Pass what its type hint says: JSON-like values, dataclasses, pydantic models."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return "; ".join(line.strip() for line in lines[:3]).rstrip(".") if lines else type(error).__name__


def within_limit(payload: Payload, what: str) -> Payload:
    """The payload itself.

    Raises:
        PayloadTooLarge: it is over PAYLOAD_BYTES_MAX.
    """
    if len(payload.data) > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge(
            f"{what} is {len(payload.data):,} bytes, over the limit of {PAYLOAD_BYTES_MAX:,}. "
            "Store it yourself (a file, an object store) and pass a reference."
        )
    return payload
