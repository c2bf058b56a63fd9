"""What a caller gives to the client is checked at the edge: of another type it would fail within, far from the call."""

from __future__ import annotations

from numbers import Real
from typing import Any


def check_seconds(seconds: object, what: str) -> None:
    """Raises TypeError unless it is a number of seconds, or not given."""
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, Real)):
        raise TypeError(f"{what} must be a number of seconds, such as 2.5, or None, not {seconds!r:.80}")


def check_whole(number: object, what: str) -> None:
    """Raises TypeError unless it is an int."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{what} must be an int, not {number!r:.80}")


def check_kind(value: object, kind: type[Any] | tuple[type[Any], ...], what: str, such_as: str) -> None:
    """Raises TypeError unless it is of this type, or not given."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{what} must be {such_as}, not {value!r:.80}")
