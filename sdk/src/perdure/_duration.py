"""Durations as users write them: a `timedelta`, or a number of seconds."""

from __future__ import annotations

from datetime import timedelta
from numbers import Real
from typing import TypeAlias

Duration: TypeAlias = timedelta | float
"""A `timedelta`, or seconds."""
DEFAULT_MAX_MS = 50 * 365 * 86_400_000
"""Of a workflow's defaults: longer than anybody keeps a run, and in seconds an `int32`, as Kubernetes has them."""
DURATION_MAX_SECONDS = 100_000 * 365 * 86_400
"""A hundred thousand years: its milliseconds, after today, are a number that every language's JSON has exactly."""


def milliseconds(duration: Duration) -> int:
    """Whole milliseconds, rounded up, so that a positive duration is never none.

    Raises:
        TypeError: it is neither a timedelta nor a number.
        ValueError: the duration is negative, or longer than DURATION_MAX_SECONDS.
    """
    if not isinstance(duration, timedelta | Real):
        raise TypeError(f"a duration is seconds (5), or a timedelta (timedelta(minutes=5)), not {duration!r:.80}")
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if seconds < 0:
        raise ValueError(f"a duration must not be negative: {duration!r}")
    if not seconds <= DURATION_MAX_SECONDS:  # nor is what is not a number
        raise ValueError(f"a duration is at most {DURATION_MAX_SECONDS} seconds, 100,000 years, not {duration!r}")
    exact = seconds * 1000
    whole = round(exact)
    return whole if abs(exact - whole) < 1e-6 else int(exact) + 1


def optional_milliseconds(duration: Duration | None) -> int | None:
    """As `milliseconds`; `None` stays `None`: no limit."""
    return None if duration is None else milliseconds(duration)
