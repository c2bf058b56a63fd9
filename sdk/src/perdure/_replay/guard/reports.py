"""What happens when a net has caught something."""

from __future__ import annotations

import functools
import logging
import sys
import sysconfig
from pathlib import Path
from typing import Literal, TypeAlias

from perdure._replay import compat
from perdure._replay.loop import ReplayLoop
from perdure.errors import NonDeterminism

log = logging.getLogger("perdure.guard")

Mode: TypeAlias = Literal["error", "warn", "off"]

LINES_MAX = 1_000
"""Different reports that are logged; a program with more has been told."""

_STDLIB = sysconfig.get_path("stdlib")
_OURS = str(Path(__file__).parents[2])

_mode: Mode = "off"
_logged: set[str] = set()


def use(mode: Mode) -> None:
    """From now on, in this process."""
    global _mode
    _mode = mode


def mode() -> Mode:
    return _mode


def watched() -> ReplayLoop | None:
    """The loop of the workflow that runs on this thread, unless it may do what it likes."""
    loop = compat.running_loop()
    return loop if type(loop) is ReplayLoop and loop.guarded and _mode != "off" else None


def caught(loop: ReplayLoop, what: str, remedy: str) -> None:
    """Workflow code has called what it must not.

    Raises:
        NonDeterminism: and the turn ends stuck with it, even if user code swallows it. With "warn" it is only logged.
    """
    text = f"{_line()}: {what} in a workflow comes out differently in replay. {remedy}"
    if _mode == "warn":
        log_once(text)
        return
    raise loop.noted(NonDeterminism(text))


def log_once(text: str) -> None:
    """A workflow does the same thing in every run: it is told once."""
    if text not in _logged and len(_logged) < LINES_MAX:
        _logged.add(text)
        log.warning("%s", text, extra={"action": "nondeterminism"})


@functools.cache
def is_theirs(file: str) -> bool:
    """Whether code is the standard library's or Perdure's: a log line has a time, and no workflow sees it."""
    return (file.startswith((_STDLIB, "<frozen")) and "site-packages" not in file) or file.startswith(_OURS)


def _line() -> str:
    """`file:line` of the innermost frame that is neither's."""
    frame = sys._getframe(2)
    while is_theirs(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
