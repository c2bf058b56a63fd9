"""Recorded outcomes, as the values and errors that workflow code gets."""

from __future__ import annotations

from typing import Any, Final

from perdure._replay.futures import Deferred
from perdure.errors import (
    ChildCanceled,
    ChildFailed,
    ChildTimedOut,
    CommandFailed,
    TaskCanceled,
    TaskFailed,
    TaskTimedOut,
    UnfitSkip,
)
from perdure.failures import exception_from_failure
from perdure_schemas.events import CommandSettled

DONE: Final = frozenset({"completed", "skipped", "fired"})
"""Outcomes that are no failure."""
_ERRORS: Final[dict[tuple[str, str], type[CommandFailed]]] = {
    ("task", "failed"): TaskFailed,
    ("task", "timed-out"): TaskTimedOut,
    ("task", "canceled"): TaskCanceled,
    ("child", "failed"): ChildFailed,
    ("child", "timed-out"): ChildTimedOut,
    ("child", "canceled"): ChildCanceled,
}


def settle(deferred: Deferred[Any], event: CommandSettled) -> None:
    """Give the recorded outcome to who waits. What cannot be decoded is raised there."""
    if event.outcome in ("completed", "skipped"):
        try:
            value = deferred._decode(event.result) if deferred._decode is not None else None
        except Exception as error:
            deferred.set_exception(error if event.outcome == "completed" else _unfit(deferred, error))
        else:
            deferred.set_result(value)
    elif event.outcome == "fired":
        deferred.set_result(None)
    else:
        deferred.set_exception(error_of(event, deferred.kind, deferred.name))


def _unfit(deferred: Deferred[Any], error: Exception) -> UnfitSkip:
    """Not the code's fault, but that of who gave the result."""
    unfit = UnfitSkip(
        f"what was given by skip for {deferred.kind} {deferred.name} at position {deferred.position} does not fit: "
        f"{str(error).rstrip('.')}. Resume the run with another skip, or an edit, for this position.",
        position=deferred.position,
    )
    unfit.__cause__ = error
    return unfit


def error_of(event: CommandSettled, kind: str, name: str) -> CommandFailed:
    """What awaiting the command raises, with what had been raised there as its cause."""
    failure = event.failure
    message = f"{kind} {name} {event.outcome}"
    if failure is not None:
        message += f": {failure.name}: {failure.message}"
    cls = _ERRORS.get((kind, event.outcome), CommandFailed)
    error = cls(message, name=name, id=event.command_id, failure=failure)
    if failure is not None:
        error.__cause__ = exception_from_failure(failure)
    return error
