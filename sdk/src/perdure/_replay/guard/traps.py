"""Functions of the standard library that look at who calls them.

They are replaced once per process. Called from anywhere but workflow code, they cost a tenth of a microsecond more.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from perdure._replay.guard.forbidden import FUNCTIONS, Forbidden
from perdure._replay.guard.reports import caught, is_theirs, watched

TRAP = "__perdure_trap__"
"""Marks a replaced function with what it stands for."""

_installed = False


def install() -> None:
    """Replace them."""
    global _installed
    if _installed:
        return
    _installed = True
    for forbidden in FUNCTIONS:
        function = forbidden.function
        if forbidden.trapped and function is not None:
            setattr(forbidden.owner, forbidden.attribute, _trap(function, forbidden))


def _trap(function: Callable[..., Any], forbidden: Forbidden) -> Callable[..., Any]:
    @functools.wraps(function)
    def trapped(*args: Any, **kwargs: Any) -> Any:
        loop = watched()
        if loop is not None and not is_theirs(sys._getframe(1).f_code.co_filename):
            caught(loop, forbidden.name, forbidden.remedy)
        return function(*args, **kwargs)

    setattr(trapped, TRAP, forbidden)
    return trapped
