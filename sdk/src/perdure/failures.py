"""Errors in language-neutral form, and back."""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

from perdure import convert, errors
from perdure.errors import CommandFailed, PerdureError, RunFailed, SerializationError
from perdure.retry import NonRetryable, RetryLater
from perdure_schemas.common import Failure, Payload

_OWN = str(Path(__file__).parent) + os.sep
_MSGSPEC = str(Path(msgspec.__file__).parent) + os.sep
_PYDANTIC = str(Path(msgspec.__file__).parent.with_name("pydantic")) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_WRONG_USE = (PerdureError, TypeError, ValueError)
UNKNOWN_WORKFLOW = "UnknownWorkflow"
"""Name of the failure of a turn whose workflow the worker does not have."""
CAUSES_MAX = 10
"""Of one failure: a longer chain is retries wrapped in each other; the near end tells what happened last."""
MESSAGE_CHARS_MAX = 10_000
"""A message is read by people; longer ones are data that somebody formatted."""
GROUP_SHOWN_MAX = 5
"""Errors of a group that its message names: they mostly fail alike."""
STACK_CHARS_MAX = 20_000
"""About 200 frames: enough to see where; recursion repeats from there."""
DETAILS_BYTES_MAX = 100_000
"""A failure is kept in the history and shown in lists: its attributes are context, not payload."""


FAIL_ON_PURPOSE = "to let the run fail on purpose, raise perdure.WorkflowError"
"""For who meant an error in workflow code to end the run: any other one is taken for a bug."""


def of_user(name: str) -> bool:
    """Whether code of the user raised a failure of this name: it is no error of ours, which says itself what to do."""
    return name != UNKNOWN_WORKFLOW and name not in vars(errors)


class RemoteError(PerdureError):
    """An error as it was raised elsewhere: in a task, a child, another language. `name` is its type's name there."""

    def __init__(self, name: str, message: str, *, stack: str = "", details: Any = None) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name = name
        self.message = message
        self.stack = stack
        self.details = details
        """The attributes of the error, as far as they had a JSON form."""


def failure_from_exception(exc: BaseException, *, non_retryable: Collection[str] = ()) -> Failure:
    """The error, its causes, and whether a task that raised it may be tried again.

    `non_retryable` are names as in RetryPolicy; a name stands for its subclasses too.
    """
    return _failure(exc, non_retryable, CAUSES_MAX)


def _failure(exc: BaseException, non_retryable: Collection[str], depth: int) -> Failure:
    retryable = not isinstance(exc, NonRetryable)
    if retryable and non_retryable:
        retryable = not any(cls.__name__ in non_retryable for cls in type(exc).__mro__)
    return Failure(
        name=readable(_name(exc)),
        message=readable(_message(exc)[:MESSAGE_CHARS_MAX]),
        stack=readable(_stack(exc)),
        details=_details(exc),
        cause=_cause(exc, depth),
        retryable=retryable,
        next_delay_ms=exc.delay_ms if isinstance(exc, RetryLater) else None,
    )


def readable(text: object) -> str:
    """A text that can be sent: half a surrogate pair, as in the name of a file that is not UTF-8, is spelled out."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def _name(exc: BaseException) -> str:
    return exc.name if isinstance(exc, RemoteError) else type(exc).__name__


def _message(exc: BaseException) -> str:
    if isinstance(exc, RemoteError):
        return exc.message
    try:
        text = str(exc)
    except Exception as error:  # a user's __str__ must not hide that there was an error
        return f"(its message cannot be made: {error!r})"
    return f"{text}: {_members(exc)}" if isinstance(exc, BaseExceptionGroup) else text


def _members(group: BaseExceptionGroup[Any]) -> str:
    """What went wrong in it; the group's own message says only where."""
    errors = list(leaves(group))
    named = [f"{_name(error)}: {_message(error)}".removesuffix(": ") for error in errors[:GROUP_SHOWN_MAX]]
    more = [f"and {len(errors) - len(named)} more"] if len(errors) > len(named) else []
    return "; ".join(named + more)


def leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    """The errors in a group and in the groups inside it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def _stack(exc: BaseException) -> str:
    if exc.__traceback__ is None:
        return exc.stack if isinstance(exc, RemoteError) else ""
    text = "".join(traceback.format_list(_shown(exc, traceback.extract_tb(exc.__traceback__))))
    return text if len(text) <= STACK_CHARS_MAX else "...\n" + text[-STACK_CHARS_MAX:]


def _shown(exc: BaseException, frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The frames of the user's code and its libraries: how a call got through this package says nothing to them.

    All, where this package raised what tells of no wrong use: that may be a defect of it.
    """
    kept, inside = [], False
    for frame in frames:
        own = frame.filename.startswith(_OWN)
        inside = own or (inside and _is_standard(frame.filename))
        if not inside:
            kept.append(frame)
    defect = bool(frames) and frames[-1].filename.startswith(_OWN) and not isinstance(exc, _WRONG_USE)
    return frames if defect or not (kept or isinstance(exc, SerializationError)) else kept


def _raised_by_user(exc: BaseException | None) -> bool:
    """Whether it comes out of code of the user's: a validator, a `__str__`."""
    if exc is None or exc.__traceback__ is None:
        return False
    return any(not _is_ours(frame.filename) for frame in traceback.extract_tb(exc.__traceback__))


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OWN, _MSGSPEC, _PYDANTIC)) or _is_standard(filename)


def _is_standard(filename: str) -> bool:
    return filename.startswith(_STANDARD) and "site-packages" not in filename


def _cause(exc: BaseException, depth: int) -> Failure | None:
    if depth == 0:
        return None
    if isinstance(exc, (CommandFailed, RunFailed)):
        return exc._recorded
    if isinstance(exc, SerializationError) and not _raised_by_user(exc.__cause__):
        return None  # how a decoder said what the message says
    cause = cause_of(exc)
    if cause is None and isinstance(exc, BaseExceptionGroup):
        cause = exc.exceptions[0]  # it knows the line that raised
    return None if cause is None or cause is exc else _failure(cause, (), depth - 1)


def cause_of(exc: BaseException) -> BaseException | None:
    """What it was raised from, or else while what was handled; as a traceback shows it."""
    return exc.__cause__ if exc.__suppress_context__ or exc.__cause__ is not None else exc.__context__


def _details(exc: BaseException) -> Payload | None:
    if isinstance(exc, (CommandFailed, RunFailed)):
        return None
    attributes = {k: v for k, v in vars(exc).items() if not k.startswith("_")}
    if isinstance(exc, RetryLater) or not attributes:
        return None
    if isinstance(exc, RemoteError):
        attributes = exc.details if isinstance(exc.details, dict) else {}
    payload = _details_payload(attributes)
    return payload if payload is not None and len(payload.data) <= DETAILS_BYTES_MAX else None


def _details_payload(attributes: dict[str, Any]) -> Payload | None:
    """Those of the attributes that have a JSON form."""
    parts: dict[str, msgspec.Raw] = {}
    for key, value in attributes.items():
        try:
            parts[readable(key)] = msgspec.Raw(convert.encode(value).data or b"null")
        except Exception:
            continue
    return Payload("json", msgspec.json.encode(parts)) if parts else None


def exception_from_failure(failure: Failure) -> RemoteError:
    """The error to show as a cause, its own causes chained to it."""
    try:
        details = convert.decode(failure.details)
    except PerdureError:  # another language's encoding: the error itself matters more
        details = None
    error = RemoteError(failure.name, failure.message, stack=failure.stack, details=details)
    if failure.cause is not None:
        error.__cause__ = exception_from_failure(failure.cause)
    return error
