"""Whether a value is itself after the way to JSON and back, as far as its type hint allows to doubt it.

JSON has no dates, bytes or infinities, and a reader makes of an object what its own hint says. So the check of a hint
is made once, when its codec is, and is None where nothing can be lost: only what may be costs something at a call.
A value in its JSON form, as a text for a `datetime` or a dict for a dataclass, is taken: the hint says what it becomes.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from perdure._fields import check_keys
from perdure._hints import stripped

Check: TypeAlias = Callable[[Any, Any], None]
"""Takes what was given and what would arrive; raises Changed."""

HINT = "Give a type hint that says what it is, or pass it as JSON has it: None, bool, int, float, str, list, dict"

_ATOMS: frozenset[type] = frozenset({type(None), bool, int, str})
_TEXTS: frozenset[type] = frozenset({str})
_UNIONS: frozenset[Any] = frozenset({typing.Union, types.UnionType})
_LISTS: frozenset[Any] = frozenset({
    list, set, frozenset, abc.Sequence, abc.Collection, abc.Iterable, abc.Set, abc.MutableSequence,
})  # fmt: skip
_MAPPINGS: frozenset[Any] = frozenset({dict, abc.Mapping, abc.MutableMapping})
_UNTYPED: frozenset[Any] = frozenset({Any, object})


class Changed(ValueError):
    """What would arrive is not what was given."""

    def __init__(self, why: str, advice: str = "", path: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.advice = advice
        """What to do about it; empty: what is said of any value that cannot travel."""
        self.path = path
        """Where in the value, as Python writes it."""

    def below(self, step: str) -> Changed:
        """The same, seen from what holds the value."""
        return Changed(self.why, self.advice, step + self.path)

    def told(self, root: str) -> str:
        """Why, and where; `root` names the whole value."""
        return f"{self.why} - at `{root}{self.path}`" if self.path else self.why


def check_of(hint: Any, _known: dict[Any, Check] | None = None) -> Check | None:
    """What to check of values of a hint that msgspec encodes; None: whatever it takes arrives as it is."""
    known: dict[Any, Check] = {} if _known is None else _known
    hint = stripped(hint)
    if hint in _UNTYPED:
        return check_json
    if hint is str:
        return _check_text
    kind, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in _UNIONS:
        return _union(arguments, known)
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return _in_places([check_of(each, known) for each in arguments])
    if kind in _LISTS or kind is tuple:
        return _each(check_of(arguments[0] if arguments else Any, known))
    if kind in _MAPPINGS:
        key, value = arguments or (str, Any)
        return _mapping(str if key in _UNTYPED else key, check_of(value, known), known)
    return _record(kind, known)


# --- hints that say nothing, and texts ----------------------------------------------------------------


def check_json(given: Any, _value: Any = None) -> None:
    """Raises Changed unless it is JSON's own, of exactly these types: others would come back as one of them.

    A tuple is taken for the list it arrives as: `return await (a() & b())` is one, and as in Python's own `json`.
    """
    kind = type(given)
    if kind in _ATOMS:
        return
    if kind is float:
        check_finite(given)
    elif kind is list or kind is tuple:
        _check_within(given, enumerate(given))
    elif kind is dict:
        if not _TEXTS.issuperset(map(type, given)):
            odd = next(key for key in given if type(key) is not str)
            raise Changed(f"the key {odd!r:.80} would come back as {str(odd)!r:.80}", HINT)
        _check_within(given.values(), given.items())
    else:
        raise Changed(f"nothing says that it is of type {kind.__qualname__}, and JSON has no such type", HINT)


def _check_within(values: Iterable[Any], steps: Iterable[tuple[Any, Any]]) -> None:
    if _ATOMS.issuperset(map(type, values)):  # the usual case, at the speed of C
        return
    for step, value in steps:
        try:
            check_json(value)
        except Changed as changed:
            raise changed.below(f"[{step!r}]") from None


def check_finite(value: float) -> None:
    """Raises Changed for what JSON can write as null only."""
    if not math.isfinite(value):
        raise Changed(f"JSON has no {value!r}, it would come back as None", "Pass None or a text for it yourself")


def check_finite_within(value: Any) -> None:
    """The same of any values below: builtins, as msgspec makes them."""
    if isinstance(value, float):
        check_finite(value)
        return
    inner: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        inner = enumerate(value)
    for step, each in inner:
        try:
            check_finite_within(each)
        except Changed as changed:
            raise changed.below(f"[{step!r}]") from None


def _check_text(given: Any, value: Any) -> None:
    if not isinstance(given, str):
        raise _other(given, value)


def _other(given: Any, value: Any) -> Changed:
    return Changed(f"it would arrive as {type(value).__qualname__}, not as {type(given).__qualname__}")


# --- unions and containers ----------------------------------------------------------------------------


def _union(members: tuple[Any, ...], known: dict[Any, Check]) -> Check | None:
    if not _UNTYPED.isdisjoint(members):
        return check_json
    some = [each for each in members if each not in (None, type(None))]
    checks = {_class_of(each): check_of(each, known) for each in some}
    if len(some) == 1:
        (check,) = checks.values()
        return _optional(check) if check is not None or some == [float] else None

    def check_member(given: Any, value: Any) -> None:
        kind = type(value)
        if type(given) is not kind and not _is_json_form(given, value):
            _check_not_lost(given, value)
            raise _other(given, value)
        check = checks.get(kind)
        if check is not None:
            check(given, value)

    return check_member


def _class_of(hint: Any) -> Any:
    kind = typing.get_origin(hint) or hint
    if kind in _MAPPINGS or typing.is_typeddict(kind):
        return dict
    if kind in {abc.Sequence, abc.Collection, abc.Iterable, abc.MutableSequence}:
        return list
    return kind


def _is_json_form(given: Any, value: Any) -> bool:
    """Whether it arrives as what the hint makes of it: an equal value of the base class, or a container's content."""
    if isinstance(value, (str, int, float)):
        return isinstance(given, type(value)) or (type(given) is int and given == value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return isinstance(given, abc.Collection)
    return isinstance(given, Mapping)


def _check_not_lost(given: Any, value: Any) -> None:
    if value is None and isinstance(given, float):
        check_finite(given)


def _optional(check: Check | None) -> Check:
    def check_optional(given: Any, value: Any) -> None:
        if value is None:
            _check_not_lost(given, value)
        elif check is not None:
            check(given, value)

    return check_optional


def _each(check: Check | None) -> Check | None:
    if check is None:
        return None

    def check_each(given: Any, value: Any) -> None:
        if check is _check_text and _TEXTS.issuperset(map(type, given)):
            return
        if isinstance(value, (set, frozenset)):  # in another order than what was given
            changed_to = next((each for each in value if each not in given), None)
            value = [part if part in value else changed_to for part in given]
        for index, (part, arrived) in enumerate(zip(given, value, strict=False)):
            try:
                check(part, arrived)
            except Changed as changed:
                raise changed.below(f"[{index}]") from None

    return check_each


def _in_places(checks: list[Check | None]) -> Check | None:
    places = [(index, check) for index, check in enumerate(checks) if check is not None]
    if not places:
        return None

    def check_places(given: Any, value: Any) -> None:
        for index, check in places:
            try:
                check(given[index], value[index])
            except Changed as changed:
                raise changed.below(f"[{index}]") from None

    return check_places


def _mapping(key: Any, check: Check | None, known: dict[Any, Check]) -> Check | None:
    key_check = check_of(key, known)
    if key_check is None and check is None:
        return None

    def check_mapping(given: Any, value: Any) -> None:
        if key_check is not None and not (key is str and _TEXTS.issuperset(map(type, given))):
            for before, after in zip(given, value, strict=False):
                if type(before) is not type(after) and not _is_json_form(before, after):
                    raise Changed(f"the key {before!r:.80} would come back as {after!r:.80}", HINT)
        if check is None:
            return
        if check is check_json:
            _check_within(given.values(), given.items())
            return
        for step, part, arrived in zip(given, given.values(), value.values(), strict=False):
            try:
                check(part, arrived)
            except Changed as changed:
                raise changed.below(f"[{step!r}]") from None

    return check_mapping


# --- classes ------------------------------------------------------------------------------------------


def _record(cls: Any, known: dict[Any, Check]) -> Check | None:
    """Of dataclasses, Structs and TypedDicts: that no other class arrives, and no field is left behind."""
    if not isinstance(cls, type) or not (
        typing.is_typeddict(cls) or dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct)
    ):
        return None
    if cls not in known:
        record = _Record(cls)
        known[cls] = record.check  # before its fields: one may be of its own class
        hints = typing.get_type_hints(cls)
        checks = [(name, check_of(hint, known)) for name, hint in hints.items()]
        record.checks = [(name, check) for name, check in checks if check is not None]
    return known[cls]


class _Record:
    """What to check of a class with fields."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.checks: list[tuple[str, Check]] = []
        """Of the fields that could change."""
        self._typed_dict = typing.is_typeddict(cls)
        self._ours = not issubclass(cls, msgspec.Struct)
        """Structs say themselves what they do with unknown keys."""

    def check(self, given: Any, value: Any) -> None:
        """Raises Changed, or ValueError for a key that is no field."""
        has_keys = isinstance(given, Mapping)
        if has_keys and self._ours:
            check_keys(self.cls, given)
        elif not has_keys and type(given) is not type(value):
            raise _other(given, value)
        for name, check in self.checks:
            part = given.get(name) if has_keys else getattr(given, name, None)
            if part is not None:
                try:
                    check(part, value.get(name) if self._typed_dict else getattr(value, name, None))
                except Changed as changed:
                    raise changed.below(f"[{name!r}]" if has_keys else f".{name}") from None


# --- what pydantic encodes ----------------------------------------------------------------------------


def check_equal(given: Any, value: Any) -> None:
    """Raises Changed unless what arrives equals what was given, but for what its class leaves out on purpose."""
    if type(given) is type(value) and given == value:
        return
    names = _field_names(value)
    if names is not None:
        if type(given) is not type(value):
            raise _other(given, value)
        names += getattr(value, "__pydantic_extra__", None) or ()
        _check_parts([(f".{n}", getattr(given, n, None), getattr(value, n, None)) for n in names])
    elif isinstance(value, dict) and isinstance(given, Mapping) and list(given) == list(value):
        _check_parts([(f"[{key!r}]", part, value[key]) for key, part in given.items()])
    elif isinstance(value, (list, tuple)) and isinstance(given, abc.Sequence) and len(given) == len(value):
        _check_parts([(f"[{index}]", *parts) for index, parts in enumerate(zip(given, value, strict=True))])
    else:
        _check_equal_value(given, value)


def _check_parts(parts: list[tuple[str, Any, Any]]) -> None:
    for step, given, value in parts:
        try:
            check_equal(given, value)
        except Changed as changed:
            raise changed.below(step) from None


def _check_equal_value(given: Any, value: Any) -> None:
    _check_not_lost(given, value)
    same_kind = isinstance(given, type(value)) or type(given) is int
    if same_kind and (given == value or (given != given and value != value)):
        return
    if type(given) is type(value):
        if "__eq__" not in {name for base in type(given).__mro__[:-1] for name in vars(base)}:  # nobody can tell
            return
        raise Changed(f"it would arrive as {value!r:.80}, which is another value")
    raise _other(given, value)


def _field_names(value: Any) -> list[str] | None:
    fields = getattr(type(value), "__pydantic_fields__", None)
    if fields is not None:
        return [name for name, field in fields.items() if not field.exclude]
    return [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else None
