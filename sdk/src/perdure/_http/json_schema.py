"""JSON schemas of messages as `forms` writes and reads them, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from perdure._http.meanings import KINDS, meaning
from perdure_schemas.common import Payload
from perdure_schemas.events import Event

Schema = dict[str, Any]
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
_BOUNDS = {"ge": "minimum", "le": "maximum"}
_SIZES = {str: ("minLength", "maxLength"), list: ("minItems", "maxItems")}
_TIMES = ("_at", "_from", "_before")
_ENCODED: Schema = {
    "type": "object",
    "description": "A value that is no plain JSON, such as bytes, or one that its sender has encrypted.",
    "required": ["$payload"],
    "properties": {
        "$payload": {
            "type": "object",
            "description": "The value as it travels.",
            "required": ["encoding", "data"],
            "properties": {
                "encoding": {
                    "type": "string",
                    "description": "`bytes`, or the layers of the wire contract, such as `json+zstd`.",
                },
                "data": {"type": "string", "format": "byte", "description": "The bytes, as base64."},
            },
        }
    },
}
_EVENT: Schema = {
    "type": "object",
    "description": "An event of a history. Its other fields are those of the record in schemas/avro/history that `type`"
    " names; there may be more types in a later release.",
    "required": ["type"],
    "properties": {
        "type": {
            "type": "string",
            "description": "What happened.",
            "enum": [each.__struct_config__.tag for each in get_args(Event)],
        }
    },
    "additionalProperties": True,
}
_FIXED: dict[str, Schema] = {
    "Value": {"description": "Any JSON: a value of yours, as it stands. One that is no plain JSON is an Encoded."},
    "Arguments": {
        "description": "A list of JSON values; or an Encoded of one.",
        "anyOf": [{"type": "array", "items": {}}, {"$ref": "#/components/schemas/Encoded"}],
    },
    "Encoded": _ENCODED,
    "Event": _EVENT,
}

_FILLED: dict[str, Any] = {"args": [], "payload": None, "options": {}}
"""What the API takes where they are left out."""


class Components:
    """What schemas refer to."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = dict(_FIXED)

    def of(self, kind: Any, name: str = "") -> Schema:
        """The schema of a type. `name`: of the field that has it, which tells units, and lists of arguments."""
        if kind is Payload:
            return _reference("Arguments" if name == "args" else "Value")
        if kind == Event:
            return _reference("Event")
        origin = get_origin(kind)
        if origin is Annotated:
            return {**self.of(get_args(kind)[0], name), **_bounds(kind)}
        if origin is Literal:
            return {"type": "string", "enum": list(get_args(kind))}
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(each, name) for each in get_args(kind)]}
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return {"type": "array", "items": self.of(get_args(kind)[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(get_args(kind)[1])}
        if issubclass(kind, Struct):
            return self._struct(kind)
        return {"type": _PLAIN[kind], **({"format": "epoch-ms"} if kind is int and _is_time(name) else {})}

    def body(self, kinds: Sequence[type[Struct]], names: Collection[str], needed: Collection[str]) -> Schema:
        """Of a message, or of one and what it carries, of which callers give these fields."""
        properties: dict[str, Schema] = {}
        for kind in kinds:
            for name in kind.__struct_fields__:
                if name in names:
                    filled = {"default": _FILLED[name]} if name in _FILLED and name not in needed else {}
                    properties[name] = {**filled, **self.field(kind, name)}
        required = {"required": sorted(needed)} if needed else {}
        return {"type": "object", "properties": properties, "additionalProperties": False, **required}

    def field(self, kind: type[Struct], name: str) -> Schema:
        """Of one field, with what it means and its default."""
        schema = self.of(get_type_hints(kind, include_extras=True)[name], name)
        found = {each.name: each for each in msgspec.structs.fields(kind)}[name]
        default = found.default_factory() if found.default_factory is not msgspec.NODEFAULT else found.default
        told = {} if default is msgspec.NODEFAULT else {"default": _plain(default)}
        return {**schema, "description": meaning(kind, name), **told}

    def more(self, kind: type[Struct], fields: dict[str, Any]) -> None:
        """What the API adds to an answer."""
        properties = self.schemas[self._struct(kind)["$ref"].rpartition("/")[2]]["properties"]
        for name, of in fields.items():
            properties[name] = {**self.of(of, name), "description": meaning(kind, name)}

    def _struct(self, kind: type[Struct]) -> Schema:
        name = kind.__name__
        if name not in self.schemas:
            made: Schema = {"type": "object", "description": KINDS[kind]}
            self.schemas[name] = made  # first: failures have causes
            made["properties"] = {each: self.field(kind, each) for each in kind.__struct_fields__}
            if needed := [each.name for each in msgspec.structs.fields(kind) if each.required]:
                made["required"] = needed
        return _reference(name)


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _plain(default: Any) -> Any:
    return {} if isinstance(default, Struct) else default


def _is_time(name: str) -> bool:
    return name == "at" or name.endswith(_TIMES)


def _bounds(kind: Any) -> Schema:
    base = get_args(kind)[0]
    found: Schema = {}
    for meta in kind.__metadata__:
        assert isinstance(meta, Meta)
        found |= {_BOUNDS[name]: getattr(meta, name) for name in _BOUNDS if getattr(meta, name) is not None}
        sizes = zip(_SIZES.get(get_origin(base) or base, ()), (meta.min_length, meta.max_length), strict=False)
        found |= {name: size for name, size in sizes if size is not None}
    return found
