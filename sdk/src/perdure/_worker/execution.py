"""One attempt, as user code sees it: arguments decoded, the function called, its result or error encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace

from perdure import context
from perdure._worker.task_time import Alarm, TaskTime
from perdure.context import TaskContext
from perdure.errors import PayloadUnreadable, PerdureError
from perdure.failures import failure_from_exception
from perdure.task import Task
from perdure_runtime.ports import Delivery
from perdure_schemas.common import Failure, Payload
from perdure_schemas.messages import RunTask


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt in progress on this worker. Changed on the messaging loop only, but for `handle`."""

    run: RunTask
    task: Task[..., Any]
    deliveries: list[Delivery]
    context: TaskContext
    time: TaskTime
    started_at: float
    """By that time."""
    announced: bool = False
    """Whether the task engine knows that this worker runs it, and its inbox."""
    begun: bool = False
    """Whether its user code runs, or is about to."""
    ending: Literal["timed-out", "canceled"] | None = None
    """Why the worker wants it to end."""
    answered: bool = False
    timer: Alarm | None = None
    handle: Any = None
    """What its executor needs to cancel it."""
    beat_at: float | None = None
    """When its last heartbeat was sent."""
    beat_timer: Alarm | None = None
    progress: Payload | None = None


@dataclass(slots=True)
class Ended:
    """How user code ended: with a result, or with a failure."""

    result: Payload | None = None
    failure: Failure | None = None
    canceled: bool = field(default=False)
    """It ended because it was canceled."""


async def call_async(attempt: Attempt) -> Ended:
    """Never raises: whatever user code raises, also SystemExit, is a failure of this attempt alone."""
    context.enter(attempt.context)
    signature = attempt.task.signature
    values = decoded(attempt)
    if isinstance(values, Ended):
        return values
    try:
        result = await signature.call(attempt.task.fn, values)
    except BaseException as error:
        return failed(attempt, error)
    return encoded(attempt, result)


def call_sync(attempt: Attempt) -> Ended:
    """As `call_async`, for a plain function."""
    context.enter(attempt.context)
    values = decoded(attempt)
    if isinstance(values, Ended):
        return values
    try:
        result = attempt.task.signature.call(attempt.task.fn, values)
    except BaseException as error:
        return failed(attempt, error)
    return encoded(attempt, result)


def decoded(attempt: Attempt) -> list[Any] | Ended:
    """The arguments, or the failure for want of them: trying again would not help, unless another worker can read
    them."""
    try:
        return attempt.task.signature.decode(attempt.run.args)
    except PayloadUnreadable as error:
        return Ended(failure=unreadable(error))
    except Exception as error:
        return Ended(failure=failure_for_good(error))


def unreadable(error: PayloadUnreadable) -> Failure:
    """Another worker may have the key, or a way to the store; nobody can read what is gone or damaged."""
    return replace(failure_for_good(error), retryable=error.elsewhere)


def encoded(attempt: Attempt, result: Any) -> Ended:
    if attempt.context.delegated:
        return Ended()
    try:
        return Ended(attempt.task.signature.encode_result(result))
    except Exception as error:  # the work is done; doing it again would give the same
        return Ended(failure=failure_for_good(error))


def failed(attempt: Attempt, error: BaseException) -> Ended:
    trace = error.__traceback__
    if trace is not None:  # without the frame of ours that called user code
        error = error.with_traceback(trace.tb_next or trace)
    failure = failure_from_exception(error, non_retryable=attempt.run.options.retry.non_retryable)
    return Ended(failure=failure, canceled=attempt.context.canceled)


def failure_for_good(error: BaseException) -> Failure:
    """A failure that no other attempt would mend."""
    stackless = isinstance(error, PerdureError)  # its message says it all
    failure = failure_from_exception(error.with_traceback(None) if stackless else error)
    return replace(failure, retryable=False)
