"""Which line keeps a thread busy: what its author can change."""

from __future__ import annotations

import linecache
import sys
import sysconfig
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_STDLIB = sysconfig.get_path("stdlib")
_OWN = str(Path(__file__).resolve().parents[1])
"""The guard stands between a workflow and what it calls."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """The line that a thread is at, in code that is not the standard library's."""

    file: str
    line: int
    function: str
    source: str
    """The line itself; empty where there is no source."""
    stack: str

    def __str__(self) -> str:
        said = f": {self.source}" if self.source else ""
        return f"{self.file}:{self.line} in {self.function}{said}"

    @property
    def facts(self) -> dict[str, str | int]:
        """For a log record."""
        return {"file": self.file, "line": self.line, "function": self.function, "stack": self.stack}


def blocking(thread: threading.Thread) -> Blocking | None:
    """Where the thread is now; nothing if it has ended."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return None
    user = blocking_frame(frame)
    code, line = user.f_code, user.f_lineno
    source = linecache.getline(code.co_filename, line).strip()
    return Blocking(code.co_filename, line, code.co_qualname, source, "".join(traceback.format_stack(frame)))


def blocking_frame(frame: FrameType) -> FrameType:
    """The innermost frame that is neither the standard library's nor ours."""
    current: FrameType | None = frame
    while current is not None:
        if _is_user_code(current.f_code.co_filename):
            return current
        current = current.f_back
    return frame


def _is_user_code(file: str) -> bool:
    installed = "site-packages" in file
    return not file.startswith(_OWN) and (installed or not file.startswith((_STDLIB, "<frozen")))
