"""The match of what workflow code issues with what its history has recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path as FilePath

from perdure.errors import WorkflowChangedError
from perdure_schemas.common import Command, Payload

INLINE_MARK = "~"
"""In a position: what follows was issued inside the inline function at the position before it."""

VALUE_CHARS_MAX = 120
"""Of arguments that are told: a line of a terminal, while a value may have megabytes."""

_OURS = str(FilePath(__file__).parent.parent)
_ASYNCIO = str(FilePath(sys.modules["asyncio"].__file__ or "").parent)
_CONTEXTLIB = sys.modules["contextlib"].__file__ or "contextlib"


class Record:
    """Recorded commands that the code has not issued again yet, by position.

    Positions, not order, identify them: a branch that now runs earlier than another finds its own.
    """

    __slots__ = ("_by_position", "_inside", "tells_values")

    def __init__(self) -> None:
        self._by_position: dict[str, Command] = {}
        self._inside: dict[str, list[str]] = {}
        self.tells_values = True
        """Whether errors may say what arguments were: not where these are encrypted, since errors are not."""

    def load(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._by_position[command.position] = command
            if INLINE_MARK in command.position:
                owner = command.position.rpartition(INLINE_MARK)[0]
                self._inside.setdefault(owner, []).append(command.position)

    def take(self, position: str, kind: str, name: str, digest: str, *, args: Payload | None = None) -> Command | None:
        """What is recorded there; `None` where nothing is. `args` are told of what does not fit.

        Raises:
            WorkflowChangedError: something else is recorded.
        """
        recorded = self._by_position.pop(position, None)
        if recorded is None:
            return None
        if recorded.kind != kind or recorded.name != name or (recorded.digest != digest and kind != "cancel"):
            raise _changed(recorded, kind, name, args if self.tells_values else None)
        return recorded

    def skip_inside(self, position: str) -> None:
        """An inline function is not run in replay: take what it had issued as issued."""
        for inner in self._inside.pop(position, ()):
            self._by_position.pop(inner, None)
            self.skip_inside(inner)

    def check_issued(self, commands: Sequence[Command]) -> None:
        """Raises WorkflowChangedError when the code no longer issues one of a turn's commands."""
        if not self._by_position:
            return
        for command in commands:
            if command.position in self._by_position:
                raise WorkflowChangedError(
                    f"The history has {_describe(command)} at position {command.position}, which the code no longer "
                    f"issues. {_REMEDY}",
                    position=command.position,
                    recorded=_describe(command),
                    current="nothing",
                )


_REMEDY = (
    "Guard the change with patched('…'), run the old build for runs that started on it, "
    "or reset the run to before this position."
)


def _changed(recorded: Command, kind: str, name: str, args: Payload | None) -> WorkflowChangedError:
    now = f"{kind} {name}".strip()
    then = _describe(recorded)
    what = f"{now}, with other arguments{_difference(recorded.args, args)}" if now == then else now
    return WorkflowChangedError(
        f"{user_line()}: the history has {then} at position {recorded.position}; the code now issues {what}. {_REMEDY}",
        position=recorded.position,
        recorded=then,
        current=what,
    )


def _difference(recorded: Payload | None, current: Payload | None) -> str:
    """Both, from a little before where they begin to differ; empty if they do not, or cannot be told."""
    if recorded is None or current is None or recorded == current:
        return ""
    texts = [payload.data.decode("utf-8", "replace") if payload.data else "none" for payload in (recorded, current)]
    differ = (index for index, (then, now) in enumerate(zip(*texts, strict=False)) if then != now)
    common = next(differ, min(map(len, texts)))
    begin = max(0, common - VALUE_CHARS_MAX // 4) if max(map(len, texts)) > VALUE_CHARS_MAX else 0
    return ": recorded {}, now {}".format(*(_cut(text, begin) for text in texts))


def _cut(text: str, begin: int) -> str:
    end = begin + VALUE_CHARS_MAX
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if len(text) > end else ''}"


def _describe(command: Command) -> str:
    return f"{command.kind} {command.name}".strip()


def user_line() -> str:
    """`file:line` of the innermost frame that is neither ours nor asyncio's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, _ASYNCIO, _CONTEXTLIB)):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
