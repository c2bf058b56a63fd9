"""Errors, by whose fault they are.

`WorkflowError` and what derives from it end a run `failed` when workflow code lets them out; any other
exception there is a bug, and the run gets `stuck`. The docstring of each says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from perdure_runtime.errors import AlreadyInUse as AlreadyInUse
from perdure_runtime.errors import EngineDefect as EngineDefect
from perdure_runtime.errors import PerdureError as PerdureError
from perdure_runtime.errors import StorageUnavailable as StorageUnavailable
from perdure_schemas.common import BuildPolicy, Failure, Payload
from perdure_schemas.events import RunStatus

# --- raised in workflow code; uncaught they fail the run -------------------------------------------


class WorkflowError(PerdureError):
    """Raise it (or a subclass) in a workflow to end the run `failed`."""


class InvalidArguments(WorkflowError):
    """The run was started with arguments that its workflow does not take. Start another with the right ones."""


class CommandFailed(WorkflowError):
    """A task or child did not complete. `failure` says why; `id` and `name` say which."""

    def __init__(self, message: str, *, name: str = "", id: str = "", failure: Failure | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.id = id
        self.failure = failure or Failure(name=type(self).__name__, message=message)
        """What was raised there; where nothing was, as of a cancel, this error itself."""
        self._recorded = failure


class TaskFailed(CommandFailed):
    """A task failed for good: its retries are used up, or the error is not retryable."""


class TaskTimedOut(TaskFailed):
    """A task had no outcome within one of its time-outs."""


class TaskCanceled(CommandFailed):
    """A task was canceled from outside the workflow."""


class ChildFailed(CommandFailed):
    """A child workflow failed. `failure.cause` is what failed it."""


class ChildCanceled(CommandFailed):
    """A child workflow was canceled or terminated."""


class ChildTimedOut(ChildFailed):
    """A child workflow exceeded its run time-out."""


# --- raised in workflow code by a mistake of its author -------------------------------------------


class NotInWorkflow(PerdureError):
    """A workflow-only call was made outside a workflow, or an outside-only call inside one."""


class NonDeterminism(PerdureError):
    """Workflow code did what would come out differently in replay: clock, randomness, I/O, threads."""


class WorkflowChangedError(PerdureError):
    """The code no longer issues what the history has recorded at this position."""

    def __init__(self, message: str, *, position: str = "", recorded: str = "", current: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.recorded = recorded
        self.current = current


# --- raised to clients ----------------------------------------------------------------------------


class RunFailed(PerdureError):
    """The run whose result was asked for failed. `failure` says why; `perdure resume ID` goes on from there."""

    def __init__(
        self, message: str, *, workflow_id: str = "", run_id: str = "", failure: Failure | None = None
    ) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.failure = failure or Failure(name=type(self).__name__, message=message)
        """As of `CommandFailed`."""
        self._recorded = failure


class RunCanceled(RunFailed):
    """The run was canceled."""


class RunTerminated(RunFailed):
    """The run was terminated."""


class RunTimedOut(RunFailed):
    """The run exceeded its run time-out."""


class RunNotFound(PerdureError):
    """There is no such run, or it is past its retention."""


class AlreadyStarted(PerdureError):
    """A run with this workflow id is in force, or one that has ended keeps the id. The message says which: choose
    another id, or what it names of `conflict` and `reuse`."""

    def __init__(self, message: str, *, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id


class Refused(PerdureError):
    """The command does not apply to the run's present state; the message says why."""


class QueryFailed(PerdureError):
    """The query raised, or no worker answered in time."""


class UpdateFailed(PerdureError):
    """The update raised; its cause tells what."""


class UpdateTimeout(PerdureError):
    """The update was not answered in time, and may be done yet. Asked for again by its `update_id`, it is done once,
    and its answer is had: see `Handle.options`."""

    def __init__(self, message: str, *, update_id: str) -> None:
        super().__init__(message)
        self.update_id = update_id


class ResultTimeout(PerdureError):
    """The run is still open after the time given. It goes on, and may be asked again; if it is stuck or paused, the
    message says what it waits for. `status` and `last_error` are empty where they could not be had."""

    def __init__(self, message: str, *, status: RunStatus | Literal[""] = "", last_error: str = "") -> None:
        super().__init__(message)
        self.status: RunStatus | Literal[""] = status
        self.last_error = last_error


class PayloadUnreadable(PerdureError):
    """A value is encrypted with a key that this process does not have, damaged, no longer stored, or stored where this
    process has no way to. The message says which. With the key, or with PERDURE_URL, resume the run."""

    def __init__(self, message: str, *, elsewhere: bool = False) -> None:
        """`elsewhere`: another process may be able to read it."""
        super().__init__(message)
        self.elsewhere = elsewhere


class Unavailable(PerdureError):
    """The engine's broker or store does not answer. Try again: with the same id no run begins beside an open one."""


class NamespaceNotServed(PerdureError):
    """The engine serves other namespaces; `served` names them. Nothing was sent."""

    def __init__(self, message: str, *, served: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.served = served


# --- raised at the edge: bad input ------------------------------------------------------------------


class DefinitionError(PerdureError):
    """A task or workflow is declared in a way that cannot work. The message names the line and the remedy."""


class SerializationError(PerdureError):
    """A value cannot be turned into JSON and back by its type hints. The message names the parameter."""


class UnfitSkip(SerializationError):
    """A result that a person gave by skip is not what the task or child returns. Resume the run with another one."""

    def __init__(self, message: str, *, position: str = "") -> None:
        super().__init__(message)
        self.position = position


class UnknownName(PerdureError):
    """No worker of this client has the workflow or task, or the workflow no such channel, query or update: mend the
    name.

    A worker of `Client.embedded` has what is given to it. A channel that code makes itself is signaled by
    `handle.signal(channel("name"), value)`.
    """


class PayloadTooLarge(PerdureError):
    """Arguments of one call, or a result, are over 16,777,216 bytes; or over what a message bears, where there is
    nowhere else to put them. The text says which. Store what is large elsewhere, and pass its name."""


class NotInstalled(PerdureError):
    """What was asked for needs an extra of Perdure that is not installed. The message says how to install it."""


# --- control flow -------------------------------------------------------------------------------------


class Evicted(BaseException):
    """The instance is being closed: no call of the SDK is possible any more. Never catch it."""


class Blocked(BaseException):
    """Workflow code ran too long without giving control back. Never catch it."""

    def __str__(self) -> str:
        """It is raised by its class alone, in the midst of that code."""
        return "workflow code ran for seconds without awaiting, and was interrupted: computing belongs in a task"


class ContinueAsNew(BaseException):
    """Ends the run and starts the next one with new arguments. Raised by `continue_as_new()`. Never catch it."""

    def __init__(self, name: str, payload: Payload, build_policy: BuildPolicy = "current") -> None:
        super().__init__(f"{name} continues as a new run")
        self.name = name
        self.payload = payload
        self.build_policy: BuildPolicy = build_policy
