"""How a run ends: completed, failed, canceled, continued; or how its turn stops, by a bug or by changed code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from perdure._replay import compat
from perdure._replay.code import Stoppage, WorkflowCode
from perdure._replay.futures import Branch, Deferred
from perdure._replay.guard import reports, seeds
from perdure._replay.loop import ReplayLoop
from perdure.errors import Blocked, CommandFailed, ContinueAsNew, WorkflowChangedError, WorkflowError
from perdure.failures import cause_of, leaves
from perdure_schemas.common import Command, Completion, Failure
from perdure_schemas.common import ContinueAsNew as NextRun

log = logging.getLogger("perdure.workflow")


class Ending:
    """Looked at after each drain."""

    def __init__(self, code: WorkflowCode, loop: ReplayLoop) -> None:
        self._code = code
        self._loop = loop
        self.stoppage: Stoppage | None = None
        self.completion: Completion | None = None
        self.cancel_requested = False
        self._failures: list[str] = []
        """Ids of the commands that failed, in the order of the history."""
        self._strange = ""
        """What is wrong with the history that was replayed."""

    def load(self, made_by: set[str]) -> None:
        """A history is to be replayed, whose turns recorded this of their processes: Python and its hash seed."""
        self._strange = seeds.strange(made_by)
        if self._strange and reports.mode() == "error":
            self._stop(WorkflowChangedError(self._strange))

    def check_issued(self, commands: Sequence[Command]) -> None:
        """A recorded turn was replayed: the code must have issued all of its commands."""
        try:
            self._loop.record.check_issued(commands)
        except WorkflowChangedError as error:
            self._stop(error)

    def failed(self, command_id: str) -> None:
        """A command did not complete. The code may take that, or end with it."""
        self._failures.append(command_id)

    def miss(self, seq: int) -> None:
        """A signal after the code's end, in the same turn: it moves on to the next run, if there is one."""
        completion = self.completion
        if completion is not None and completion.next_run is not None:
            completion.next_run.unreceived.append(seq)

    def conclude(self, main: Branch[Any] | None) -> None:
        """After a drain: whether the run has ended, and how."""
        loop = self._loop
        if loop.fault is not None:
            self._stop(loop.fault)
            return
        for branch in loop.failed:
            error = compat.exception(branch)
            if isinstance(error, ContinueAsNew):
                self._end(error)
                return
        loop.failed = [branch for branch in loop.failed if branch is not main and compat.unseen(branch)]
        if main is None or not main.done():
            if loop.failed and not loop.pending and not any(box.awaited for box in loop.mailboxes.values()):
                self._end(compat.exception(loop.failed[0]))  # nothing else can happen: it is what went wrong
            return
        if main.cancelled():
            self._end(asyncio.CancelledError())
            return
        error = main.exception()
        if error is None and loop.failed:
            error = compat.exception(loop.failed[0])  # a failure nobody looked at is not a success
        if error is not None:
            self._end(error)
            return
        self._complete(main.result())

    def _complete(self, result: Any) -> None:
        try:
            self.completion = Completion(status="completed", result=self._code.encode_result(result))
        except Exception as unserializable:
            self._stop(unserializable)
        else:
            self._tell_forgotten()

    def _tell_forgotten(self) -> None:
        """Tasks that the run's end cancels though nobody ever waited for them: mostly an `await` is missing."""
        context = self._loop.context
        for waiting in self._loop.pending.values():
            if isinstance(waiting, Deferred) and waiting.kind == "task" and waiting.forgotten:
                log.warning(
                    "run %s of %s completed while task %s (position %s) was under way, which nobody awaited: it is "
                    "canceled; write `await %s(...)`",
                    context.workflow_id,
                    self._code.name,
                    waiting.name,
                    waiting.position,
                    waiting.name,
                    extra={"workflow_id": context.workflow_id, "run_id": context.run_id},
                )

    def _end(self, error: BaseException | None) -> None:
        match error:
            case ContinueAsNew():
                unreceived = sorted(seq for box in self._loop.mailboxes.values() for seq in box.unreceived)
                next_run = NextRun(
                    name=error.name, args=error.payload, build_policy=error.build_policy, unreceived=unreceived
                )
                self.completion = Completion(status="continued-as-new", next_run=next_run)
            case asyncio.CancelledError() if self.cancel_requested:
                self.completion = Completion(status="canceled")
            case WorkflowError():
                self._fail(error, [error])
            case BaseExceptionGroup() if all(isinstance(each, WorkflowError) for each in leaves(error)):
                self._fail(error, leaves(error))
            case None:
                pass
            case _:
                self._stop(error)

    def _fail(self, error: BaseException, errors: Iterable[BaseException]) -> None:
        """A resume goes back to before the first command that made it fail, and so does all that failed anew.

        Of several errors the order is not the history's: a group inside may have cleaned up for long.
        """
        ids = set[str]().union(*(_failed_commands(each) for each in errors))
        own = error.id if isinstance(error, CommandFailed) else ""
        id = next((id for id in self._failures if id in ids), own)
        self.completion = Completion(status="failed", failure=self._code.failure(error), command_id=id)

    def _stop(self, error: BaseException) -> None:
        match error:
            case WorkflowChangedError():
                if self._strange and str(error) != self._strange:
                    error.args = (f"{error}; {self._strange}",)
                self.stoppage = Stoppage("changed", self._failure(error))
            case Blocked():
                self.stoppage = Stoppage("timeout", self._failure(error))
            case _:
                self.stoppage = Stoppage("bug", self._failure(error))

    def _failure(self, error: BaseException) -> Failure:
        failure = self._code.failure(error)
        error.__traceback__ = None  # it is text now, and pins every frame
        return failure


def _failed_commands(error: BaseException) -> set[str]:
    """Ids of the commands whose failure it is, or for which it was raised: by `from`, or while that was handled."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        if isinstance(following, CommandFailed):
            return {following.id}
        if isinstance(following, BaseExceptionGroup):
            return set[str]().union(*(_failed_commands(each) for each in leaves(following)))
        seen.add(id(following))
        following = cause_of(following)
    return set()
