"""Tasks: units of work with effects, run by workers, retried, at least once.

    @task(retry=Retry(attempts=5), timeout=30)
    async def charge(order: str, cents: int) -> str: ...

In a workflow `charge("o-1", 500)` dispatches it at once and gives a `Deferred[str]`.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, Unpack, overload

import msgspec

from perdure._duration import optional_milliseconds
from perdure._names import check_text, checked_tags, is_name
from perdure._options import TaskCalled, TaskDeclared, check_options
from perdure.errors import DefinitionError, NotInWorkflow
from perdure.retry import Retry
from perdure.signature import Signature, location
from perdure_schemas.common import TaskOptions

if TYPE_CHECKING:
    from perdure._replay.futures import Deferred

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Mode: TypeAlias = Literal["async", "thread", "process"]


class Task(Generic[P, R_co]):
    """A declared task. Call it in a workflow; outside, `task.fn(...)` runs the plain function."""

    fn: Callable[P, Any]
    """The plain function."""
    name: str
    signature: Signature
    mode: Mode
    task_options: TaskOptions
    """As they travel."""

    def __init__(self, fn: Callable[P, Any], *, name: str | None, mode: Mode | None, method: bool = False) -> None:
        """Use `@task`. With `method`, `fn` takes self first."""
        self.name = name or fn.__name__
        if not is_name(self.name):
            raise DefinitionError(
                f"{location(fn)}: {self.name!r} cannot name a task. Give one of letters, digits, '_', '-' and '.', "
                'as in @task(name="charge").'
            )
        self.fn = fn
        self.signature = Signature(fn, self.name, method=method)
        self.mode = _checked_mode(fn, mode)
        self.task_options = TaskOptions()
        self.__doc__ = fn.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[R_co]:
        """Dispatch it; await the Deferred for its result.

        Raises:
            NotInWorkflow: there is no workflow here to record it.
        """
        issue = getattr(asyncio._get_running_loop(), "issue_task", None)
        if issue is None:
            raise NotInWorkflow(
                f"{self.name}(...) dispatches a task from a workflow, and this is none. "
                f"Call {self.name}.fn(...) for the plain function, or client.run({self.name}, ...) to run it as a task."
            )
        deferred: Deferred[R_co] = issue(
            self.name, self.signature.bind(args, kwargs), self.task_options, self.signature.decode_result
        )
        return deferred

    def options(self, **options: Unpack[TaskCalled]) -> Self:
        """The same task with these options changed: `charge.options(timeout=5)("o-1", 500)`.

        For the options see `TaskCalled`.
        """
        check_options(options, TaskCalled, "options()")
        retry, tags, build = options.get("retry"), options.get("tags"), options.get("build")
        if retry is not None and not isinstance(retry, Retry):
            raise DefinitionError(
                f"{location(self.fn)}: retry of task {self.name} is a Retry, as Retry(attempts=5), not {retry!r:.80}."
            )
        changes = {
            "retry": None if retry is None else retry.policy(),
            "attempt_timeout_ms": optional_milliseconds(options.get("timeout")),
            "queue_timeout_ms": optional_milliseconds(options.get("queue_timeout")),
            "heartbeat_timeout_ms": optional_milliseconds(options.get("heartbeat_timeout")),
            "total_timeout_ms": optional_milliseconds(options.get("total_timeout")),
            "tags": None if tags is None else checked_tags(tags),
            "build": None if build is None else check_text(build, "build"),
        }
        changed = copy.copy(self)
        given = {key: value for key, value in changes.items() if value is not None}
        changed.task_options = msgspec.structs.replace(self.task_options, **given)
        return changed

    def bound_to(self, fn: Callable[..., Any], mode: Mode | None) -> Task[..., Any]:
        """The same contract run by another function: how a service's implementation is registered."""
        changed: Task[..., Any] = copy.copy(self)
        changed.fn = fn
        changed.mode = _checked_mode(fn, mode)
        return changed

    def __repr__(self) -> str:
        return f"<task {self.signature!r}>"


class AsyncTask(Task[P, R_co]):
    """A task declared with `async def`."""

    fn: Callable[P, Coroutine[Any, Any, R_co]]


class SyncTask(Task[P, R_co]):
    """A task declared with `def`: it runs in a thread, or in a process of its own with mode="process"."""

    fn: Callable[P, R_co]


def _checked_mode(fn: Callable[..., Any], mode: Mode | None) -> Mode:
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise DefinitionError(f"{location(fn)}: a task cannot be a generator. Return a list, or report by heartbeats.")
    is_async = inspect.iscoroutinefunction(inspect.unwrap(fn))
    if mode is None:
        return "async" if is_async else "thread"
    if is_async != (mode == "async"):
        kind = "async def" if is_async else "def"
        raise DefinitionError(
            f"{location(fn)}: a task declared with `{kind}` cannot have mode={mode!r}. "
            + ("Leave mode out." if is_async else 'Use mode="thread" or mode="process".')
        )
    return mode


class TaskDecorator(Protocol):
    """What `task(...)` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # as `task`
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # async first
@overload
def task(fn: Callable[P, R], /) -> SyncTask[P, R]: ...
@overload
def task(*, name: str | None = None, mode: Mode | None = None, **options: Unpack[TaskDeclared]) -> TaskDecorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    mode: Mode | None = None,
    **options: Unpack[TaskDeclared],
) -> Any:
    """Declare a task: `@task`, or `@task(retry=..., timeout=...)`.

    Its arguments together, and its result, have at most 16,777,216 bytes as JSON. Store what is larger elsewhere (a
    file, an object store), and pass its name.

    Args:
        name: the wire name; the function's own unless given. It must stay the same while runs are open.
        mode: "async" for `async def`; "thread" (the default of `def`) or "process" (for work that holds the
            interpreter lock) otherwise.
        options: see `TaskDeclared`.

    Raises:
        DefinitionError: the function cannot be a task; the message tells the line and the remedy.
    """
    check_options(options, TaskDeclared, "@task")

    def declare(function: Callable[..., Any]) -> Task[..., Any]:
        if isinstance(function, Task):
            raise DefinitionError(f"{location(function.fn)}: {function.name} is declared a task twice. Keep one @task.")
        kind = AsyncTask if inspect.iscoroutinefunction(inspect.unwrap(function)) else SyncTask
        made: Task[..., Any] = kind(function, name=name, mode=mode)
        return made.options(**options) if options else made

    return declare if fn is None else declare(fn)
