"""Durations as users write them: a `timedelta`, or a number of seconds."""

from __future__ import annotations

from datetime import timedelta
from numbers import Real
from typing import TypeAlias

Duration: TypeAlias = timedelta | float
"""A `timedelta`, or seconds."""


def milliseconds(duration: Duration) -> int:
    """Whole milliseconds, rounded up, so that a positive duration is never none.

    Raises:
        TypeError: it is neither a timedelta nor a number.
        ValueError: the duration is negative.
    """
    if not isinstance(duration, timedelta | Real):
        raise TypeError(f"a duration is seconds (5), or a timedelta (timedelta(minutes=5)), not {duration!r:.80}")
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if seconds < 0:
        raise ValueError(f"a duration must not be negative: {duration!r}")
    exact = seconds * 1000
    whole = round(exact)
    return whole if abs(exact - whole) < 1e-6 else int(exact) + 1


def optional_milliseconds(duration: Duration | None) -> int | None:
    """As `milliseconds`; `None` stays `None`: no limit."""
    return None if duration is None else milliseconds(duration)
