"""Garbage collection of a process that serves for months and runs none of its users' code."""

from __future__ import annotations

import gc

_OBJECTS = 10_000
"""New ones between two collections of the young. Python's 700 are the objects of a few messages: a collection then
finds most of them in use and hands them on to the older, whose collections look at everything that the process has."""


def collect_rarely() -> None:
    """Leave out what the process has by now, modules above all, and collect what comes at a measure that suits it.

    For a process once it is ready. Collections were 6 to 12 % of a service's processor time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS)
