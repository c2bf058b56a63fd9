"""Waiting for a run's end: what it waits for is shown meanwhile, and why it cannot go on is told at once."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.markup import escape
from rich.status import Status

from perdure.cli import remedies
from perdure.cli.declared import Declared
from perdure.cli.output import ExitCode, Problem, status_markup, stderr
from perdure.errors import PerdureError, ResultTimeout, RunFailed, RunNotFound
from perdure.failures import FAIL_ON_PURPOSE, of_user
from perdure_runtime.errors import StorageUnavailable
from perdure_schemas.messages import RunChanged

if TYPE_CHECKING:
    from perdure.handle import Handle

Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="Wait at most so many seconds.")]

LOOK_SECONDS = 1.0
"""Between two looks at the run; also before the first, since most runs end sooner."""
LOOK_SECONDS_HERE = 0.1
"""At a run of this very process: its first look finds a bug before the worker has tried again, and told it twice."""
_COUNT = re.compile(r" \(\d+\)$")


Look = Callable[[], Declared | None]
"""At what the worker has now: its app may be changed meanwhile."""


async def result_of(
    run: Handle[Any], seconds: float | None, look: Look, *, mended: bool = True, overdue: str = ""
) -> object:
    """Its result. Raises what `Handle.result` does, but Problem when the run is still open after `seconds`: `overdue`
    is the hint then.

    With `mended=False` nobody will mend its code while it runs: then Problem too when it is stuck.
    """
    waiting = asyncio.ensure_future(run.result(timeout=seconds))
    pause = LOOK_SECONDS if mended else LOOK_SECONDS_HERE
    try:
        with _Shown(run.id) as shown:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=pause)
                if not waiting.done() and (described := await view_of(run)) is not None:
                    if described.status == "stuck" and not mended:
                        raise _at_fault(described)
                    if shown.update(described, look()) and described.status == "stuck":
                        shown.remedy(await _after_stuck(run, described))
        return await waiting
    except RunFailed as error:
        hint = await _after_failure(run) if mended else "mend the code, and run it again"
        raise Problem(str(error), hint=hint) from error
    except ResultTimeout:
        described = await view_of(run)
        state = f": {described.status}{_reason(described, look())}" if described is not None else ""
        hint = overdue or f"perdure show {run.id}   tells more;   perdure result {run.id} --wait   has no time limit"
        raise Problem(f"run {run.id!r} is still open{state}", hint=hint, code=ExitCode.failed) from None
    finally:
        waiting.cancel()


async def answer_of(run: Handle[Any], asked: Awaitable[object], look: Look) -> object:
    """What the run's code answers. What keeps it from that is told meanwhile."""
    waiting = asyncio.ensure_future(asked)
    try:
        with _Shown(run.id) as shown:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=LOOK_SECONDS)
                if not waiting.done() and (described := await view_of(run)) is not None:
                    shown.update(described, look())
        return await waiting
    finally:
        waiting.cancel()


async def view_of(run: Handle[Any]) -> RunChanged | None:
    """None: nothing is known of it yet, or the engine is away."""
    try:
        return await run.describe()
    except (RunNotFound, StorageUnavailable):  # not visible yet, or the engine restarts: for the result to tell
        return None


async def _after_failure(run: Handle[Any]) -> str:
    show = f"perdure show {run.id}"
    try:
        remedy = remedies.for_failed(run.id, await run.history())
    except PerdureError:  # the failure is what was asked for
        return show
    return f"{show}   then   {remedy}" if remedy else show


async def _after_stuck(run: Handle[Any], described: RunChanged) -> str:
    try:
        history = await run.history()
    except PerdureError:
        history = []
    return remedies.for_stuck(described, history)


def _at_fault(run: RunChanged) -> Problem:
    """The worker's log has told the traceback."""
    meant = f"   or   {FAIL_ON_PURPOSE}" if of_user(run.last_error.partition(":")[0]) else ""
    hint = f"mend the code, and run it again{meant}"
    return Problem(f"workflow {run.name} cannot go on: {run.last_error}", hint=hint)


def obstacle(run: RunChanged, declared: Declared | None) -> str:
    """What keeps an open run from going on, if anything but time does."""
    trouble = declared.trouble(run.name) if declared is not None else ""
    if run.status == "stuck":
        error = run.last_error or "its last turn failed"
        return f"{error}; {trouble}" if trouble else error
    if run.status == "paused":
        return f"until: perdure unpause {run.workflow_id}"
    if declared is None or trouble:
        return trouble
    if run.name not in declared.workflows and run.waits_for in ("", "worker"):
        return f"waits for a worker that has workflow {run.name}; {declared.app} has not"
    lacking = [wait for wait in (_COUNT.sub("", each) for each in run.waits_for.split(", ")) if _lacks(declared, wait)]
    if not lacking:
        return ""
    children = [wait.removeprefix("child ") for wait in lacking if wait.startswith("child ")]
    reasons = [told for name in children if (told := declared.trouble(name))]
    why = f"; {'; '.join(reasons)}" if reasons else f", which {declared.app} does not declare"
    return f"waits for {', '.join(lacking)}{why}"


def _lacks(declared: Declared, wait: str) -> bool:
    kind, _, name = wait.partition(" ")
    known = {"task": declared.tasks, "child": declared.workflows}.get(kind)
    return known is not None and name not in known


def _reason(run: RunChanged, declared: Declared | None) -> str:
    hindered = obstacle(run, declared)
    if hindered:
        return f", {hindered}"
    return f", waits for {run.waits_for}" if run.waits_for else ""


class _Shown:
    """A moving line on a terminal; elsewhere a line whenever what hinders the run is another than before."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._console = stderr()
        self._status: Status | None = None
        if sys.stderr.isatty():
            self._status = self._console.status(f"{escape(id)} [dim]is running[/]")
        self._told = ""

    def __enter__(self) -> Self:
        return self

    def update(self, run: RunChanged, declared: Declared | None) -> bool:
        """Whether what hinders the run was told, and not before."""
        reason = _reason(run, declared)
        if self._status is not None:
            self._status.start()
            self._status.update(f"{escape(self._id)} {status_markup(run.status)}[dim]{escape(reason)}[/]")
        if not obstacle(run, declared) or reason == self._told:
            return False
        self._told = reason
        self._console.print(f"{escape(self._id)} is {status_markup(run.status)}{escape(reason)}")
        return True

    def remedy(self, text: str) -> None:
        """What a person can type for a stuck run."""
        show = f"perdure show {escape(self._id)}   has the traceback"
        self._console.print(f"  [dim]try:[/] {escape(text)};   {show}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
