"""Unions whose members JSON cannot tell apart: what is read could be another class than what was written."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections import abc
from itertools import combinations
from typing import Any

import msgspec

from perdure._hints import stripped, unaliased
from perdure.errors import DefinitionError

_JSON_KINDS: dict[Any, str] = {
    type(None): "null", None: "null", bool: "bool", int: "number", float: "number", str: "text",
    dict: "object", abc.Mapping: "object", abc.MutableMapping: "object",
    list: "array", tuple: "array", set: "array", frozenset: "array", abc.Sequence: "array", abc.Collection: "array",
    abc.Iterable: "array", abc.Set: "array", abc.MutableSequence: "array",
}  # fmt: skip
_TEXTS = frozenset({
    "bytes", "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal",
    "uuid.UUID",
})  # fmt: skip
_ALWAYS_TOLD_APART: frozenset[Any] = frozenset({int, float, bool})
"""From each other, as Python writes them: 1, 1.0, true."""


class AmbiguousUnion(DefinitionError, TypeError):
    """A hint that would let a value arrive as another class."""


def check_unions(hint: Any, _open: frozenset[Any] = frozenset()) -> None:
    """Look for ambiguous unions in a hint, in its arguments, and in the fields of its dataclasses.

    What is inside pydantic's own models they say themselves; values that they change are found when they are given.

    Raises:
        AmbiguousUnion: there is one; it says which, and what to do.
    """
    hint = unaliased(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        if not any(_discriminates(each) for each in arguments[1:]):
            check_unions(arguments[0], _open)
        return
    if origin in (typing.Union, types.UnionType):
        for one, other in combinations(arguments, 2):
            if not _told_apart(one, other):
                raise AmbiguousUnion(_advice(one, other))
    for each in arguments if origin is not typing.Literal else ():
        check_unions(each, _open)
    cls = origin or hint
    if cls not in _open and dataclasses.is_dataclass(cls) and not _is_pydantic(cls):
        for each in typing.get_type_hints(cls, include_extras=True).values():
            check_unions(each, _open | {cls})


def _is_pydantic(cls: Any) -> bool:
    return hasattr(cls, "__pydantic_fields__")


def _discriminates(metadata: Any) -> bool:
    return getattr(metadata, "discriminator", None) is not None


def _advice(one: Any, other: Any) -> str:
    names = " and ".join(
        each.__qualname__ if isinstance(each, type) and typing.get_origin(each) is None else str(each)
        for each in (one, other)
    )
    if _fields(one) is None or _fields(other) is None:
        return (
            f"JSON does not tell {names} apart, so that one could arrive as the other. "
            "Take one of them, or a dataclass with a field for each"
        )
    return (
        f"JSON does not tell {names} apart, so that one could arrive as the other. "
        "Give each a field whose Literal differs (kind: Literal['a'] = 'a'), use a discriminated union of pydantic, "
        "or one class for both"
    )


def _told_apart(one: Any, other: Any) -> bool:
    first, second = stripped(one), stripped(other)
    if Any in (first, second) or object in (first, second):
        return True  # which takes JSON's own values only
    fields, others = _fields(first), _fields(second)
    if fields is not None and others is not None:
        return _records_told_apart(fields, others)
    if _is_tagged_pair(first, second):
        return True
    values, other_values = _values(first), _values(second)
    if values is not None and other_values is not None:
        return not values & other_values or bool(_python_class(first) == _python_class(second))
    kinds, other_kinds = _json_kind(first), _json_kind(second)
    if kinds is None or other_kinds is None or kinds != other_kinds:
        return True  # a class of which we know nothing is looked at when a value is given
    if {first, second} <= _ALWAYS_TOLD_APART:
        return True
    return bool(_python_class(first) == _python_class(second))


def _is_tagged_pair(one: Any, other: Any) -> bool:
    """Of msgspec's Structs, which are told apart by tags; it refuses those that are not."""
    return all(isinstance(each, type) and issubclass(each, msgspec.Struct) for each in (one, other))


def _python_class(hint: Any) -> Any:
    """What a value of the hint is in Python: equal classes lose nothing to each other."""
    if typing.get_origin(hint) is typing.Literal:
        classes = {type(value) for value in typing.get_args(hint)}
        return classes.pop() if len(classes) == 1 else frozenset(classes)
    return typing.get_origin(hint) or hint


def _values(hint: Any) -> set[Any] | None:
    """As JSON has them, where they are known one by one."""
    if typing.get_origin(hint) is typing.Literal:
        return {(type(each), each) for each in map(_plain_value, typing.get_args(hint))}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {(type(each.value), each.value) for each in hint if isinstance(each.value, (str, int))}
    return None


def _plain_value(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _json_kind(hint: Any) -> str | None:
    cls = typing.get_origin(hint) or hint
    values = _values(hint)
    if values:
        kinds = {_JSON_KINDS.get(kind) for kind, _ in values}
        return kinds.pop() if len(kinds) == 1 else None
    if cls in _JSON_KINDS:
        return _JSON_KINDS[cls]
    if _fields(cls) is not None:
        return "object"
    name = f"{getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', '')}".removeprefix("builtins.")
    return "text" if name in _TEXTS else None


# --- classes with fields ------------------------------------------------------------------------------


def _fields(cls: Any) -> dict[str, tuple[Any, bool]] | None:
    """Hint, and whether it is required, by the name in JSON; None: it is no such class."""
    cls = typing.get_origin(cls) or cls
    if _is_pydantic(cls):
        return {
            field.alias or name: (field.annotation, field.is_required())
            for name, field in cls.__pydantic_fields__.items()
        }
    if typing.is_typeddict(cls):
        return {name: (hint, name in cls.__required_keys__) for name, hint in typing.get_type_hints(cls).items()}
    if not dataclasses.is_dataclass(cls):
        return None
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(cls)
    }


def _records_told_apart(fields: dict[str, tuple[Any, bool]], others: dict[str, tuple[Any, bool]]) -> bool:
    """By a field that one of them requires and the other has not, or of which no value fits both."""
    if any(required and name not in others for name, (_, required) in fields.items()):
        return True
    if any(required and name not in fields for name, (_, required) in others.items()):
        return True
    return any(_disjoint(fields[name][0], others[name][0]) for name in fields.keys() & others.keys())


def _disjoint(one: Any, other: Any) -> bool:
    first, second = stripped(one), stripped(other)
    values, other_values = _values(first), _values(second)
    if values is not None and other_values is not None:
        return not values & other_values
    kind, other_kind = _json_kind(first), _json_kind(second)
    return kind is not None and other_kind is not None and kind != other_kind
