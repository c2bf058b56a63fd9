"""What a caller gives for the fields of a dataclass: a key that is no field would be dropped without a word.

Readers drop it nevertheless, on purpose: what an older release recorded may have a field that is gone. Models of
pydantic and Structs of msgspec say themselves what they do with such keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Collection, Mapping
from typing import Any

_PYDANTIC = ("__pydantic_config__", "__pydantic_fields__", "__pydantic_validator__")


def mentions_fields(hint: Any) -> bool:
    """Whether values of the hint may be dataclasses of which we say what they take."""
    return _is_ours(hint) or any(mentions_fields(each) for each in typing.get_args(hint))


def check_fields(given: Any, value: Any) -> None:
    """Compare what was given, as JSON or as Python values, with what was made of it.

    Raises:
        ValueError: it has a key that the dataclass made of it has no field for.
    """
    if _is_ours(type(value)):
        _check_own(given, value)
    elif isinstance(value, dict) and isinstance(given, Mapping):
        _check_each(given.values(), value.values())
    elif isinstance(value, (list, tuple)) and isinstance(given, (list, tuple)):
        _check_each(given, value)


def check_keys(cls: type, given: Collection[Any]) -> None:
    """Raises ValueError: a dataclass or TypedDict has no field for one of the keys."""
    of_dataclass = dataclasses.is_dataclass(cls)
    names = [field.name for field in dataclasses.fields(cls)] if of_dataclass else list(typing.get_type_hints(cls))
    unknown = [key for key in given if key not in names]
    if not unknown:
        return
    aliases = _aliases(cls)
    for key in unknown:
        if key not in aliases:
            raise ValueError(_told(cls, key, names))


def _check_own(given: Any, value: Any) -> None:
    has_keys = isinstance(given, Mapping)
    if has_keys:
        check_keys(type(value), given)
    for name in [field.name for field in dataclasses.fields(value)]:
        part = given.get(name) if has_keys else getattr(given, name, None)
        if part is not None:
            check_fields(part, getattr(value, name, None))


def _check_each(given: Collection[Any], values: Collection[Any]) -> None:
    if len(given) == len(values):
        for part, value in zip(given, values, strict=True):
            check_fields(part, value)


def _is_ours(hint: Any) -> bool:
    return (
        isinstance(hint, type)
        and dataclasses.is_dataclass(hint)
        and not any(hasattr(hint, attribute) for attribute in _PYDANTIC)
    )


def _aliases(cls: type) -> set[str]:
    """Other names that pydantic's `Field` gives to fields of a plain dataclass."""
    said = [field.default for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for hint in typing.get_type_hints(cls, include_extras=True).values():
        said += getattr(hint, "__metadata__", ())
    names = [getattr(each, attribute, None) for each in said for attribute in ("alias", "validation_alias")]
    return {name for name in names if isinstance(name, str)}


def _told(cls: type, key: object, names: list[str]) -> str:
    near = difflib.get_close_matches(str(key), names, n=1)
    rather = f"do you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
    return f"{cls.__qualname__} has no field {key!r}; {rather}"
