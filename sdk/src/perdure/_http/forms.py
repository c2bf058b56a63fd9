"""Messages as JSON that people read and write: values of users stand as they are.

A `Payload` of JSON is that JSON. Any other one is `{"$payload": {"encoding": …, "data": base64}}`, and so is a user's
own object that looks like this.
"""

from __future__ import annotations

import base64
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from perdure_schemas.common import NULL, Payload

T = TypeVar("T")
_MARK = "$payload"


class MalformedJson(ValueError):
    """JSON that is not of the form asked for. The message says where and why."""


def to_json(value: Any) -> bytes:
    """A message, or a list or dict of messages, as JSON."""
    return msgspec.json.encode(plain(value))


def plain(value: Any) -> Any:
    """What `to_json` encodes; user values stay the bytes they are."""
    match value:
        case Payload():
            return payload_form(value)
        case Struct():
            tag = value.__struct_config__.tag
            fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
            return fields if tag is None else {"type": tag, **fields}
        case list() | tuple():
            return [plain(each) for each in value]
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case _:
            return value


def payload_form(payload: Payload) -> Any:
    """A payload as it stands in JSON."""
    if payload.encoding == "null":
        return None
    if payload.encoding == "json" and not payload.data.lstrip().startswith(b'{"$payload"'):
        return msgspec.Raw(payload.data)
    return {_MARK: {"encoding": payload.encoding, "data": base64.b64encode(payload.data).decode()}}


def payload_of(value: Any) -> Payload:
    """The payload that a JSON value stands for.

    Raises:
        MalformedJson: it has the mark of a payload, but is none.
    """
    if value is None:
        return NULL
    if isinstance(value, dict) and value.keys() == {_MARK}:
        try:
            return msgspec.convert(value[_MARK], Payload)
        except msgspec.ValidationError as error:
            raise MalformedJson(f"{_MARK}: {error}") from error
    return Payload("json", msgspec.json.encode(value))


def from_json(kind: type[T], data: bytes) -> T:
    """The message that this JSON is the form of.

    Raises:
        MalformedJson: it is none of this kind.
    """
    try:
        found: T = of_plain(kind, msgspec.json.decode(data))
    except msgspec.DecodeError as error:
        raise MalformedJson(f"no JSON: {error}") from error
    return found


def of_plain(kind: Any, value: Any) -> Any:
    """As `from_json`, of JSON that is decoded."""
    try:
        return msgspec.convert(_marked(kind, value), kind)
    except msgspec.ValidationError as error:
        raise MalformedJson(str(error)) from error


def _marked(kind: Any, value: Any) -> Any:
    """The value with every payload in the form that msgspec knows."""
    if kind is Payload:
        return msgspec.to_builtins(payload_of(value))
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _of_union([each for each in get_args(kind) if each is not NoneType], value)
    if origin in (list, tuple) and isinstance(value, list):
        return [_marked(get_args(kind)[0], each) for each in value]
    if isinstance(value, dict):
        if origin is dict:
            return {key: _marked(get_args(kind)[1], each) for key, each in value.items()}
        if isinstance(kind, type) and issubclass(kind, Struct):
            types = _types(kind)
            return {name: _marked(types[name], each) if name in types else each for name, each in value.items()}
    return value


def _of_union(kinds: list[Any], value: Any) -> Any:
    if value is None:
        return None  # an absent payload and one of None mean the same to whoever reads it
    if len(kinds) == 1:
        return _marked(kinds[0], value)
    if isinstance(value, dict):
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Struct) and kind.__struct_config__.tag == value.get("type"):
                return _marked(kind, value)
    return value


@cache
def _types(kind: type[Struct]) -> dict[str, Any]:
    return get_type_hints(kind)
