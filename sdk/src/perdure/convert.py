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
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure._hints import unaliased
from perdure._located import located
from perdure._unchanged import Changed, Check, check_equal, check_finite_within, check_of
from perdure._unions import AmbiguousUnion, check_unions
from perdure.errors import PayloadTooLarge, PayloadUnreadable, SerializationError
from perdure_schemas.blobs import is_reference
from perdure_schemas.common import NULL, Payload

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
"""Of the arguments of one call, or one result: whoever runs the code has all of it in memory, twice for a moment. What
is larger belongs in a store of the user's, and its name in the payload."""
OFFLOAD_ABOVE_BYTES = 256 * 1024
"""What is larger, as it travels, is stored beside the messages: brokers and histories copy many times what is in them.
"""
STORED_BYTES_MAX = PAYLOAD_BYTES_MAX + 1024
"""Of a value as it is stored: what encryption adds, its key's id included, is a third of the difference at most."""
INLINE_BYTES_MAX = 990_000
"""Of what is not stored beside them: search attributes, progress, and all values of a worker that has no blob store. A
message bears 1,048,576 bytes, and the engine passes a payload on within longer ones (a turn, a page of history, a
time-out's timer): it counts 1,000,000 for a command with all that is about it, and a start that leaves it no room would
be taken, and never go on."""

_SCALARS: frozenset[Any] = frozenset({Any, object, int, str, float, bool, bytes, type(None), None})
_LIBRARY_SCALARS = frozenset({
    "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal", "uuid.UUID",
})  # fmt: skip
_CONTAINERS: frozenset[Any] = frozenset({
    list, dict, tuple, set, frozenset, typing.Union, types.UnionType, typing.Literal,
    abc.Sequence, abc.Mapping, abc.Collection, abc.Iterable, abc.Set, abc.MutableSequence, abc.MutableMapping,
})  # fmt: skip


class Unreadable(Payload, frozen=True, gc=False):
    """A payload of layers that could not be taken off; it is passed on as it came."""

    reason: str = ""
    elsewhere: bool = False
    """Whether another process may be able to read it: one that has the key, a way to where it is stored,
    or a newer release."""


class Fetched(Payload, frozen=True, gc=False):
    """A payload that was stored beside its message."""

    reference: Payload = NULL
    """What the message had in its place."""


class Unknown:
    """The hint of a value whose reader has one that is not known here: any value that has a JSON form is taken."""


class Codec:
    """Encodes and decodes values of one type hint."""

    __slots__ = ("check", "decode", "encode", "hint", "plain")

    def __init__(self, hint: Any) -> None:
        """Raises TypeError when no JSON form is known for the hint, or an AmbiguousUnion."""
        self.hint = hint
        self.encode: Callable[[Any], bytes]
        self.decode: Callable[[bytes], Any]
        self.check: Check | None
        """Raises Changed for a given value and what arrives; None: this hint's values arrive as they are."""
        self.plain = hint is Unknown or is_plain(hint)
        """Whether msgspec does it."""
        if self.plain:
            try:
                self.decode = msgspec.json.Decoder(Any if hint is Unknown else hint).decode
                self.encode = _ENCODER.encode
                self.check = _check_unknown if hint is Unknown else check_of(hint)
                return
            except TypeError:  # unions it cannot tell apart in JSON; pydantic tries them one by one
                self.plain = False
        check_unions(hint)
        self.encode, self.decode = _pydantic_codec(hint)
        self.check = check_equal


def _check_unknown(given: Any, value: Any) -> None:
    if value is None or isinstance(value, (dict, list)):
        check_finite_within(msgspec.to_builtins(given, enc_hook=_encode_other, str_keys=True))


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
    hint = unaliased(hint)
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


def encode(value: Any, hint: Any = Unknown, what: str = "value", *, bytes_max: int = PAYLOAD_BYTES_MAX) -> Payload:
    """One value as a payload; `what` names it in errors.

    Raises:
        SerializationError: it is not of its type, has no JSON form, or would arrive as another value.
        PayloadTooLarge: it is over the limit.
        DefinitionError: the hint is a union whose members look alike in JSON.
    """
    if hint is bytes and type(value) is bytes:
        return within_limit(Payload("bytes", value), what, bytes_max)
    if value is None and (hint is type(None) or hint is Any or hint is Unknown):
        return NULL
    data = b""
    try:
        chosen = codec(hint)
        data = chosen.encode(value)
        decoded = chosen.decode(data)
        if value is None:
            return NULL
        if chosen.check is not None:
            chosen.check(value, decoded)
    except AmbiguousUnion:
        raise
    except Exception as error:
        raise serialization_error(what, value, hint, error, data=data) from error
    return within_limit(Payload("json", data), what, bytes_max)


def encode_attributes(attributes: abc.Mapping[str, Any]) -> Payload:
    """Search attributes, which are never stored beside their message: read models compare them.

    Raises:
        SerializationError: one has no JSON form.
        PayloadTooLarge: together they are over INLINE_BYTES_MAX.
    """
    return encode(dict(attributes), what="the attributes", bytes_max=INLINE_BYTES_MAX)


def encode_arguments(args: Sequence[Any], name: str) -> Payload:
    """The arguments of what is known by name only.

    Raises:
        SerializationError: one has no JSON form; it is named by its number.
        PayloadTooLarge: together they are over PAYLOAD_BYTES_MAX.
    """
    try:
        return encode(list(args), what=f"the arguments of {name}")
    except SerializationError:
        for number, value in enumerate(args, 1):
            encode(value, what=f"argument {number} of {name}")
        raise


def decode(payload: Payload | None, hint: Any = Unknown, what: str = "value") -> Any:
    """The value in a payload.

    Raises:
        SerializationError: it is not of that type.
        PayloadUnreadable: it is encrypted with a key that is not here.
    """
    if payload is None or payload.encoding == "null":
        return None
    if payload.encoding == "bytes":
        return payload.data
    if payload.encoding != "json":
        refuse_layers(payload, what)
    try:
        return codec(hint).decode(payload.data)
    except Exception as error:
        why = reason(error, hint, payload.data)
        raise SerializationError(f"{what} cannot be read as {describe(hint)}: {why}") from error


def refuse_layers(payload: Payload, what: str) -> None:
    """Nothing, if the payload is plain.

    Raises:
        PayloadUnreadable: it is still encrypted or compressed, or only refers to the value.
    """
    if isinstance(payload, Unreadable):
        raise PayloadUnreadable(f"{what} cannot be read: {payload.reason}", elsewhere=payload.elsewhere)
    if is_reference(payload):
        raise PayloadUnreadable(
            f"{what} cannot be read: it only refers to a value, which was not fetched", elsewhere=True
        )
    if "+" in payload.encoding:
        raise PayloadUnreadable(
            f"{what} cannot be read: it is {payload.encoding}, and this process was given no keys. "
            "Give it those of its sender by PERDURE_PAYLOAD_KEYS_FILE.",
            elsewhere=True,
        )


def admits_none(hint: Any) -> bool:
    """Whether None is a value of the hint."""
    try:
        codec(hint).decode(b"null")
    except Exception:
        return False
    return True


_ADVICE = "Pass what its type hint says: JSON-like values, dataclasses, pydantic models."
_ADVICE_BYTES = (
    "Give its model model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64'): "
    "pydantic writes bytes as UTF-8 text unless told otherwise."
)


def serialization_error(
    what: str, value: Any, hint: Any, error: Exception, *, data: bytes, root: str = "value"
) -> SerializationError:
    """The error for a value that does not survive the way to JSON and back: `error` tells why, `data` is its JSON."""
    why = reason(error, hint, data, root)
    advice = _ADVICE_BYTES if "invalid utf-8" in why else _ADVICE
    if isinstance(error, Changed) and error.advice:
        advice = f"{error.advice}."
    given, target = type(value).__qualname__, "JSON" if hint is Any or hint is Unknown else describe(hint)
    return SerializationError(f"{what}, an object of type {given}, cannot travel as {target}: {why}. {advice}")


def reason(error: Exception, hint: Any, data: bytes, root: str = "value") -> str:
    """Why this JSON is not of the hint, in one line. `root` names the whole value; no `data`: it has no JSON form."""
    if isinstance(error, Changed):
        return error.told(root)
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    first = "; ".join(line.strip() for line in lines[:3]).rstrip(".")
    return located(first, codec(hint).decode, data, root) if data and isinstance(error, msgspec.DecodeError) else first


def within_limit(payload: Payload, what: str, bytes_max: int = PAYLOAD_BYTES_MAX) -> Payload:
    """The payload itself.

    Raises:
        PayloadTooLarge: it is over the limit.
    """
    if len(payload.data) > bytes_max:
        raise PayloadTooLarge(
            f"{what}: {len(payload.data):,} bytes, over the limit of {bytes_max:,}. "
            "Store what is large yourself (a file, an object store) and pass a reference."
        )
    return payload
