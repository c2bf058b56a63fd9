"""Calls of what cannot be replaced, `datetime.now` above all, seen where workflow code makes them: Python 3.12 on.

Only the code of workflows is watched; nothing else runs slower.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any

from perdure._replay.guard.forbidden import MOMENTS, NOW
from perdure._replay.guard.reports import caught, watched

_watching: set[CodeType] = set()


def watch(codes: Iterable[CodeType]) -> None:
    """Watch the calls that these make, and the functions defined in them."""
    monitoring: Any = getattr(sys, "monitoring", None)
    if monitoring is None:
        return
    tool = monitoring.OPTIMIZER_ID  # of six numbers the one that neither debuggers, coverage nor profilers use
    if monitoring.get_tool(tool) not in {None, "perdure"}:
        return
    if monitoring.get_tool(tool) is None:
        monitoring.use_tool_id(tool, "perdure")
        monitoring.register_callback(tool, monitoring.events.CALL, _called)
    for code in codes:
        if code not in _watching:
            _watching.add(code)
            monitoring.set_local_events(tool, code, monitoring.events.CALL)


def _called(_code: CodeType, _offset: int, function: Any, _first: Any) -> None:
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if name in MOMENTS and isinstance(owner, type) and issubclass(owner, dt.date):
        loop = watched()
        if loop is not None:
            caught(loop, f"{owner.__name__}.{name}()", NOW)
