"""Whether what is in the cluster still is what was wanted: defaults that Kubernetes adds are no difference."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from perdure_operator.objects import APPLIED, Object

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
_LEFT_OUT_IN_LISTS = {"apiVersion", "kind"}


def differs(wanted: Object, found: Object) -> bool:
    """Whether `wanted` has to be applied again. `spec.replicas` is not looked at: `scaling` changes it."""
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get(APPLIED) != wanted["metadata"]["annotations"][APPLIED]:
        return True
    spec = {name: value for name, value in wanted.get("spec", {}).items() if name != "replicas"}
    told = {name: value for name, value in wanted.items() if name not in _LEFT_OUT_IN_LISTS}
    return not holds({**told, "spec": spec}, {**found, "spec": found.get("spec", {})})


def holds(wanted: Any, found: Any) -> bool:
    """Whether `found` has all that is `wanted`, and maybe more."""
    match wanted:
        case dict():
            return isinstance(found, dict) and all(_has(name, value, found) for name, value in wanted.items())
        case list():
            return isinstance(found, list) and _list_holds(wanted, found)
        case str() | int() | float():
            return bool(wanted == found) or _same_quantity(wanted, found)
        case _:
            return bool(wanted == found)


def _has(name: str, value: Any, found: dict[str, Any]) -> bool:
    if name in found:
        return holds(value, found[name])
    return value in (None, "", False, 0) or value == {} or value == []  # Kubernetes leaves out what is empty


def _list_holds(wanted: list[Any], found: list[Any]) -> bool:
    """Lists of named things by name, as server-side apply merges them; others by position."""
    key = next((key for key in ("name", "mountPath", "uid") if all(_keyed(key, each) for each in wanted)), None)
    if key is None or not wanted:
        return len(wanted) == len(found) and all(holds(*pair) for pair in zip(wanted, found, strict=True))
    known = {each.get(key): each for each in found if isinstance(each, dict)}
    return all(each[key] in known and holds(each, known[each[key]]) for each in wanted)


def _keyed(key: str, item: Any) -> bool:
    return isinstance(item, dict) and key in item


def _same_quantity(wanted: str | float, found: Any) -> bool:
    """`1000m` is stored as `1`, and `1024Mi` as `1Gi`."""
    if not isinstance(found, str | int | float):
        return False
    left, right = _quantity(str(wanted)), _quantity(str(found))
    return left is not None and left == right


def _quantity(text: str) -> Decimal | None:
    digits = text.rstrip("numkMGTPEi")
    try:
        return Decimal(digits) * _SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None
