"""What a task may know about itself while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from perdure import convert
from perdure.errors import PerdureError
from perdure_schemas.common import Failure, Payload, WorkflowRef
from perdure_schemas.messages import RunTask


class NotInTask(PerdureError):
    """`current_task()` was called outside a running task."""


class TaskContext:
    """The running attempt. Its attributes may be read, and its methods called, from any thread."""

    __slots__ = ("_heartbeat", "_run", "cancel_reason", "canceled", "delegated")

    def __init__(self, run: RunTask, heartbeat: Callable[[Payload | None], None]) -> None:
        """Made by the worker. `heartbeat` must be callable from any thread and return at once."""
        self._run = run
        self._heartbeat = heartbeat
        self.canceled = False
        """Whether somebody wants this attempt to stop. Async tasks are also canceled at their next `await`."""
        self.cancel_reason = ""
        """What somebody said why; empty: nothing."""
        self.delegated = False

    @property
    def id(self) -> str:
        """The same for all attempts of the task: pass it on as the idempotency key of what the task does."""
        return self._run.task_id

    @property
    def attempt_id(self) -> str:
        """Of this attempt: the same when it is delivered again."""
        return self._run.attempt_id

    @property
    def attempt(self) -> int:
        """1 for the first."""
        return self._run.attempt

    @property
    def name(self) -> str:
        """Of the task, as it was declared."""
        return self._run.name

    @property
    def last_failure(self) -> Failure | None:
        """Why the attempt before this one failed."""
        return self._run.last_failure

    @property
    def tags(self) -> Sequence[str]:
        """Those that it was declared or called with."""
        return tuple(self._run.options.tags)

    @property
    def workflow(self) -> WorkflowRef | None:
        """The run that asked for the task; `None` if a client did."""
        return self._run.workflow

    def heartbeat(self, progress: Any = None) -> None:
        """Tell that the attempt is alive, and how far it is; people see `progress`, and the next attempt does not."""
        limit = convert.INLINE_BYTES_MAX
        self._heartbeat(None if progress is None else convert.encode(progress, what="progress", bytes_max=limit))

    def delegate(self) -> None:
        """Somebody else completes this task: what the function returns is ignored, and
        `client.task(id).complete(result)` or `client.task(id).fail(error)` brings the outcome. Its time-outs hold on.
        """
        self.delegated = True

    def cancel(self, reason: str) -> None:
        """Called by the worker when a cancel arrives."""
        self.cancel_reason = reason
        self.canceled = True


_CURRENT: ContextVar[TaskContext] = ContextVar("perdure_task")


def current_task() -> TaskContext:
    """The context of the running attempt, in an async task or in a thread of one.

    Raises:
        NotInTask: no task runs here. A task of mode "process" has no context: use "thread".
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise NotInTask("current_task() works inside a running task of mode async or thread") from None


def enter(context: TaskContext) -> None:
    """Make it the current one in this context: the worker runs each attempt in its own."""
    _CURRENT.set(context)
