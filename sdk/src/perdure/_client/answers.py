"""What an answer means to the caller: a value, or an error that says what to do."""

from __future__ import annotations

from typing import TypeVar, assert_never

from perdure.errors import (
    AlreadyStarted,
    PerdureError,
    QueryFailed,
    Refused,
    RunCanceled,
    RunFailed,
    RunNotFound,
    RunTerminated,
    RunTimedOut,
    TaskCanceled,
    TaskFailed,
    TaskTimedOut,
    UpdateFailed,
    UpdateTimeout,
)
from perdure.failures import exception_from_failure
from perdure_schemas.common import Failure
from perdure_schemas.messages import CommandReply, QueryResult, RunResult, StartReply, TaskResult, UpdateResult

E = TypeVar("E", bound=PerdureError)

_ENDS: dict[str, type[RunFailed]] = {
    "failed": RunFailed,
    "canceled": RunCanceled,
    "terminated": RunTerminated,
    "timed-out": RunTimedOut,
}


def describe(failure: Failure | None) -> str:
    """`ValueError: bad input`."""
    if failure is None:
        return ""
    return f"{failure.name}: {failure.message}" if failure.message else failure.name


def check_started(reply: StartReply) -> None:
    """Raises AlreadyStarted or Refused unless the start was accepted."""
    match reply.status:
        case "ok":
            return
        case "conflict":
            raise AlreadyStarted(
                f"workflow id {reply.workflow_id!r}: {reply.detail or 'a run is in force'}", run_id=reply.run_id
            )
        case "refused" | "not-found":
            raise Refused(f"workflow id {reply.workflow_id!r} was not started: {reply.detail or reply.status}")
        case _:
            assert_never(reply.status)


def check_reply(reply: CommandReply, what: str, target: str) -> None:
    """Raises RunNotFound or Refused unless the command was accepted."""
    match reply.status:
        case "ok":
            return
        case "not-found":
            raise RunNotFound(f"{what} {target!r}: {reply.detail or 'there is no such run'}")
        case "refused" | "conflict":
            raise Refused(f"{what} {target!r}: {reply.detail or reply.status}")
        case _:
            assert_never(reply.status)


def run_error(result: RunResult) -> PerdureError:
    """The error for a run that ended otherwise than completed."""
    if result.status == "not-found":
        return RunNotFound(f"there is no run of workflow id {result.workflow_id!r}, or it is past its retention")
    why = describe(result.failure)
    text = f"run {result.workflow_id!r} ended {result.status}" + (f": {why}" if why else "")
    error = _ENDS.get(result.status, RunFailed)(
        text, workflow_id=result.workflow_id, run_id=result.run_id, failure=result.failure
    )
    return _caused(error, result.failure)


def task_error(result: TaskResult, name: str) -> PerdureError:
    """The error for a task that ended otherwise than completed."""
    if result.outcome == "not-found":
        return RunNotFound(f"there is no task {result.task_id!r}")
    kind = {"timed-out": TaskTimedOut, "canceled": TaskCanceled}.get(result.outcome, TaskFailed)
    why = describe(result.failure)
    text = f"task {name or result.task_id} {result.outcome}" + (f": {why}" if why else "")
    return _caused(kind(text, name=name, id=result.task_id, failure=result.failure), result.failure)


def query_error(result: QueryResult, name: str, workflow_id: str) -> PerdureError:
    """The error for a query without a result."""
    if result.status == "not-found":
        return RunNotFound(f"query {name!r}: there is no run of workflow id {workflow_id!r}")
    return _caused(
        QueryFailed(f"query {name!r} of {workflow_id!r}: {describe(result.failure) or result.status}"), result.failure
    )


def update_overdue(name: str, workflow_id: str, update_id: str, *, within: str, why: str) -> UpdateTimeout:
    """The error for an update without an answer so far. `why`: as far as that is known."""
    return UpdateTimeout(
        f"update {name!r} of {workflow_id!r} was not answered {within}{why and f': {why}'}. It may be done "
        f"yet: ask again by handle.options(update_id={update_id!r}).update(...), and it is done once",
        update_id=update_id,
    )


def update_error(result: UpdateResult, name: str, workflow_id: str) -> PerdureError:
    """The error for an update without a result."""
    if result.status == "not-found":
        return RunNotFound(f"update {name!r}: there is no run of workflow id {workflow_id!r}")
    if result.failure is None:
        return Refused(
            f"update {name!r} of {workflow_id!r}: the run ended, or continued as new, before it answered. Tasks "
            "that the update had begun may be done"
        )
    error = UpdateFailed(f"update {name!r} of {workflow_id!r}: {describe(result.failure)}")
    return _caused(error, result.failure)


def _caused(error: E, failure: Failure | None) -> E:
    if failure is not None:
        error.__cause__ = exception_from_failure(failure)
    return error
