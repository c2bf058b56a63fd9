"""What a worker tells the people who wrote the code it runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence

from perdure.failures import FAIL_ON_PURPOSE, of_user
from perdure_schemas.common import Command, Failure
from perdure_schemas.messages import RunTask, RunWorkflowTask, WorkflowTaskFailed

log = logging.getLogger("perdure.worker")

_ADDRESS = re.compile(r"\b0x[0-9a-f]+")
"""Of an object, as `repr` tells it: each try has other objects."""
STUCK_MAX = 1_000
"""Errors remembered; one that is forgotten is told in full again."""


class Lacking:
    """Names that workflows of this worker call, and that it has not: their callers wait for a worker that has."""

    def __init__(self, tasks: Collection[str], workflows: Collection[str], *, elsewhere: Collection[str] = ()) -> None:
        """`elsewhere`: what is left to other workers on purpose."""
        self._known = {"task": tasks, "child": workflows}
        self._elsewhere = elsewhere
        self._told: set[tuple[str, str]] = set()

    def look(self, commands: Sequence[Command], workflow: str) -> None:
        """Each name is told once."""
        for command in commands:
            known = self._known.get(command.kind)
            if known is None or command.name in known or (command.kind, command.name) in self._told:
                continue
            if command.name in self._elsewhere:
                continue
            self._told.add((command.kind, command.name))
            what = "task" if command.kind == "task" else "workflow"
            log.warning(
                "%s_unknown_here: workflow %s waits for %s %s, which this worker does not have (it has: %s): "
                "until a worker has it, the run waits",
                what,
                workflow,
                what,
                command.name,
                ", ".join(sorted(known)) or "none",
                extra={"action": f"{what}_unknown_here"},
            )


class Stuck:
    """Runs whose last turn could not be done: they stay open, and are tried again."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, int]] = {}
        """By run id, oldest first: the error, and how often it came."""

    def tell(self, task: RunWorkflowTask, failed: WorkflowTaskFailed) -> None:
        """An error is told with its traceback once for each run, and then in one line, until it is another."""
        error = described(failed.failure)
        same = _ADDRESS.sub("", error)
        before, times = self._told.pop(task.run_id, ("", 0))
        times = times + 1 if before == same else 1
        self._told[task.run_id] = same, times
        if len(self._told) > STUCK_MAX:
            del self._told[next(iter(self._told))]
        if times > 1:
            log.error(
                "workflow_stuck: run %s of %s again, %d times by now: %s",
                task.workflow_id,
                task.name,
                times,
                error.rpartition("\n")[2],
                extra={"action": "workflow_stuck"},
            )
        else:
            _tell_stuck(task, failed, error)


def _tell_stuck(task: RunWorkflowTask, failed: WorkflowTaskFailed, error: str) -> None:
    log.error(
        "workflow_stuck: run %s of %s (%s); it is tried again with growing pauses%s%s\n%s",
        task.workflow_id,
        task.name,
        failed.kind,
        "" if failed.kind == "worker-died" else ", and at once by changed code",
        f"; {FAIL_ON_PURPOSE}" if failed.kind == "bug" and of_user(failed.failure.name) else "",
        error,
        extra={"action": "workflow_stuck"},
    )


def tell_failed(run: RunTask, failure: Failure) -> None:
    """An attempt of a task failed; whether there is another is for the task engine to say."""
    log.info(
        "task_failed: attempt %d of %s\n%s",
        run.attempt,
        run.name,
        described(failure),
        extra={"action": "task_failed", **ids_of(run)},
    )


def ids_of(run: RunTask) -> dict[str, str]:
    """By which a log tells the task, and its workflow if it has one."""
    task = {"task_id": run.task_id}
    return task if run.workflow is None else {"workflow_id": run.workflow.workflow_id, **task}


def described(failure: Failure) -> str:
    """As Python prints an exception."""
    told = f"{failure.name}: {failure.message}" if failure.message else failure.name
    return f"{failure.stack.rstrip()}\n{told}".lstrip("\n")
