"""Finds and replaces the payloads in a message or an event. What has none is passed on as the object it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from msgspec import Struct, structs

from perdure_schemas.common import Command, Payload

T = TypeVar("T")
Change = Callable[[Payload], Payload]

IN_THE_OPEN = "attributes"
"""Fields and commands of this name carry search attributes. Read models compare them: nobody touches them."""


def found(value: Any, wanted: Callable[[Payload], bool]) -> list[Payload]:
    """Those that are wanted, in order. Every message that an engine records is asked: it costs a microsecond."""
    collected: list[Payload] = []
    _collect(value, wanted, collected)
    return collected


def _collect(value: Any, wanted: Callable[[Payload], bool], collected: list[Payload]) -> None:
    if isinstance(value, Payload):
        if wanted(value):
            collected.append(value)
    elif isinstance(value, Struct):
        for name in _holders(type(value)):
            held = getattr(value, name)
            if held is not None and not (name == "args" and _in_the_open(value)):
                _collect(held, wanted, collected)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, wanted, collected)


def replaced(value: T, change: Change, change_digest: Callable[[str], str] | None = None) -> T:
    """The value with each payload, and the digest of each command, as `change` and `change_digest` make it."""
    changed: T = _changed(value, change, change_digest)
    return changed


def _changed(value: Any, change: Change, change_digest: Callable[[str], str] | None) -> Any:
    if isinstance(value, Payload):
        return change(value)
    if isinstance(value, Struct):
        return _changed_struct(value, change, change_digest)
    if isinstance(value, list | tuple):
        items = [_changed(item, change, change_digest) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return value


def _changed_struct(value: Struct, change: Change, change_digest: Callable[[str], str] | None) -> Struct:
    changes: dict[str, Any] = {}
    for name in _holders(type(value)):
        old = getattr(value, name)
        if old is None or (name == "args" and _in_the_open(value)):
            continue
        new = _changed(old, change, change_digest)
        if new is not old:
            changes[name] = new
    if change_digest is not None and isinstance(value, Command):
        changes["digest"] = change_digest(value.digest)
    return structs.replace(value, **changes) if changes else value


def _in_the_open(value: Struct) -> bool:
    return isinstance(value, Command) and value.kind == IN_THE_OPEN


@cache
def _holders(kind: type[Struct]) -> tuple[str, ...]:
    """The fields that hold payloads, themselves or somewhere below."""
    hints = get_type_hints(kind)
    return tuple(n for n in kind.__struct_fields__ if n != IN_THE_OPEN and _holds(hints[n], frozenset({kind})))


def _holds(hint: Any, open: frozenset[type]) -> bool:
    if isinstance(hint, type) and issubclass(hint, Struct):
        if hint in {Payload, Command}:
            return True
        return hint in open or any(  # a cause within a cause
            _holds(each, open | {hint}) for name, each in get_type_hints(hint).items() if name != IN_THE_OPEN
        )
    return any(_holds(argument, open) for argument in get_args(hint))
