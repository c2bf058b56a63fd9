"""Finds and replaces the payloads in a message or an event. What has none is passed on as the object it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_type_hints

from msgspec import Struct, structs

from perdure_schemas.common import Command, Payload

T = TypeVar("T")
Change = Callable[[Payload], Payload]
Wanted = Callable[[Payload], bool]
Scan = Callable[[Any, Wanted, list[Payload]], None]

IN_THE_OPEN = "attributes"
"""Fields and commands of this name carry search attributes. Read models compare them: nobody touches them."""


_SCANS: dict[type[Any], Scan] = {}
"""By type, filled as types are met."""


def found(value: Any, wanted: Wanted) -> list[Payload]:
    """Those that are wanted, in order of their fields. Every message is asked, mostly for nothing: each type is looked
    at once, and then costs some tenths of a microsecond."""
    collected: list[Payload] = []
    _scan(value, wanted, collected)
    return collected


def _scan(value: Any, wanted: Wanted, collected: list[Payload]) -> None:
    kind = type(value)
    (_SCANS.get(kind) or _scanner(kind))(value, wanted, collected)


def _scanner(kind: type[Any]) -> Scan:
    made = _SCANS[kind] = _make_scanner(kind)
    return made


def _make_scanner(kind: type[Any]) -> Scan:
    if issubclass(kind, Payload):
        return _scan_payload
    if issubclass(kind, Command):
        return _command_scanner(_holders(kind))
    if issubclass(kind, Struct):
        return _struct_scanner(_holders(kind))
    return _scan_all if issubclass(kind, list | tuple) else _scan_nothing


def _struct_scanner(names: Sequence[str]) -> Scan:
    getters = tuple(map(attrgetter, names))

    def scan(value: Any, wanted: Wanted, collected: list[Payload]) -> None:
        for get in getters:
            held = get(value)
            if held is not None:
                kind = type(held)
                if kind is Payload:
                    if wanted(held):
                        collected.append(held)
                elif held or kind is not list:
                    (_SCANS.get(kind) or _scanner(kind))(held, wanted, collected)

    return scan


def _scan_payload(value: Payload, wanted: Wanted, collected: list[Payload]) -> None:
    if wanted(value):
        collected.append(value)


def _command_scanner(names: Sequence[str]) -> Scan:
    all_of_it, in_the_open = _struct_scanner(names), _struct_scanner([name for name in names if name != "args"])

    def scan(value: Command, wanted: Wanted, collected: list[Payload]) -> None:
        (in_the_open if value.kind == IN_THE_OPEN else all_of_it)(value, wanted, collected)

    return scan


def _scan_all(value: Iterable[Any], wanted: Wanted, collected: list[Payload]) -> None:
    for item in value:
        _scan(item, wanted, collected)


def _scan_nothing(value: Any, wanted: Wanted, collected: list[Payload]) -> None:
    """It holds none."""


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
