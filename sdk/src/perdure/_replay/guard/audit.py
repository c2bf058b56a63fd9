"""The interpreter tells what it is about to do: open a file, connect a socket, start a process.

An audit hook can never be removed; ours returns at once wherever no workflow runs.
"""

from __future__ import annotations

import sys
import zoneinfo
from typing import Any, Final

from perdure._replay.guard.forbidden import TASK
from perdure._replay.guard.reports import caught, watched

_EVENTS: Final = frozenset(
    [
        "open",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.truncate",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "builtins.input",
        "_thread.start_new_thread",
        "_thread.start_joinable_thread",
    ]
)
_FAMILIES: Final = frozenset(
    [
        "socket",
        "subprocess",
        "sqlite3",
        "shutil",
        "tempfile",
        "urllib",
        "http",
        "smtplib",
        "ftplib",
        "imaplib",
        "poplib",
        "glob",
    ]
)
"""Every event of these modules."""
_HARMLESS: Final = frozenset(
    [
        "importlib",
        "linecache",
        "tokenize",
        "traceback",
        "inspect",
        "zoneinfo",
        "logging",
        "warnings",
        "encodings",
        "pdb",
        "bdb",
        "faulthandler",
    ]
)
"""Standard modules that read files, or write the log, for anybody: what they do changes no workflow."""
_DEPTH_MAX = 200

_installed = False


def install() -> None:
    """From now on, in this process."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


class _Wanted(dict[str, bool]):
    """Whether an event is one of ours. Entering and leaving a turn causes four that are not."""

    def __missing__(self, event: str) -> bool:
        found = self[event] = event in _EVENTS or event.partition(".")[0] in _FAMILIES
        return found


_wanted = _Wanted()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _wanted[event]:
        return
    loop = watched()
    if loop is None:
        return
    if _harmless() or (event == "open" and _is_zone(args[0])):
        return
    detail = repr(args[0]) if event == "open" and args else ""
    caught(loop, f"{event}({detail})", TASK)


def _is_zone(path: Any) -> bool:
    """Whether it is of the time zone database, which zoneinfo reads without a frame of its own."""
    return isinstance(path, str) and path.startswith(zoneinfo.TZPATH)


def _harmless() -> bool:
    """Whether a module such as the import system does it, on the way of something else."""
    frame = sys._getframe(2)
    for _ in range(_DEPTH_MAX):
        name = frame.f_globals.get("__name__", "")
        if str(name).partition(".")[0] in _HARMLESS or frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
