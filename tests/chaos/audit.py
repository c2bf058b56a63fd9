"""What an outsider may hold against the cluster after all that was done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.load import Promise

_FORGOTTEN_MAX = 0.01
"""Of all runs, so many histories may be gone before they are read: more would hide what they say."""


@dataclass
class Report:
    runs: int = 0
    tasks: int = 0
    executions: int = 0
    repeated_attempts: int = 0
    published_twice: int = 0
    late_ms_max: int = 0
    forgotten: int = 0
    """Runs whose history could not be read before their retention was over."""
    listed: int = 0
    """Runs that were compared with the read model."""
    open_tasks: int = 0
    """Records of tasks that are over, which the task engine closes within an hour, when it looks at them."""
    recovery_s: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def hold(self, condition: bool, violation: str) -> None:
        if not condition:
            self.violations.append(violation)


@dataclass(frozen=True)
class Mark:
    """One execution of a task, as it left it."""

    task_id: str
    attempt_id: str
    workflow_id: str
    at: int
    """Epoch milliseconds."""
    pid: int
    """The worker's process."""


def marks_of(text: str) -> list[Mark]:
    """Those of a file of effects, which may be read while its last line is being written."""
    found = []
    whole, _, _ = text.rpartition("\n")
    for line in whole.splitlines():
        _, task_id, attempt_id, workflow_id, at, pid = line.split()
        found.append(Mark(task_id, attempt_id, workflow_id, int(at), int(pid)))
    return found


def audit_runs(report: Report, promises: Sequence[Promise]) -> None:
    """Every accepted start has one end, and the right one; signals came once and in order."""
    for promise in promises:
        report.runs += 1
        report.forgotten += promise.forgotten
        report.violations += [f"{promise.workflow_id}: {problem}" for problem in _problems(promise)]
    many = report.forgotten > max(1, report.runs * _FORGOTTEN_MAX)
    report.hold(not many, f"{report.forgotten} histories were gone before they could be read")


def _problems(promise: Promise) -> Iterator[str]:
    result = promise.result
    if not promise.done_at:
        yield "accepted, and never ended"
    elif promise.error:
        yield promise.error
    elif promise.kind == "napping":
        if result < promise.expected:
            yield f"slept for {result} ms of {promise.expected} by its own time"
    elif promise.kind == "Collector":
        if not _in_order(promise):
            yield f"signals came as {result}, resent {promise.resent}"
    elif result != promise.expected:
        yield f"{result!r}, not {promise.expected!r}"
    if promise.facts is not None:
        yield from promise.facts.faults


def _in_order(promise: Promise) -> bool:
    """Each once, in the order they were sent; twice only what the sender had to send twice."""
    came: list[Any] = promise.result
    times = Counter(came)
    return (
        len(came) == len(promise.expected)
        and sorted(came) == came
        and list(times) == promise.expected[: len(times)]
        and all(count <= 1 + promise.resent[number] for number, count in times.items())
    )


def audit_effects(report: Report, promises: Sequence[Promise], marks: Sequence[Mark]) -> None:
    """Every recorded outcome of a task has an execution, and no task ran that no turn had asked for."""
    executed = Counter(mark.task_id for mark in marks)
    attempts = Counter(mark.attempt_id for mark in marks)
    of_run: dict[str, set[str]] = {}
    for mark in marks:
        of_run.setdefault(mark.workflow_id, set()).add(mark.task_id)
    report.executions = executed.total()
    report.repeated_attempts = sum(count - 1 for count in attempts.values())
    for promise in promises:
        if promise.facts is None:
            continue
        report.tasks += len(promise.facts.tasks)
        for task_id in of_run.get(promise.workflow_id, set()) - promise.facts.tasks:
            report.violations.append(f"{promise.workflow_id}: task {task_id} ran, and no turn asked for it")
        for task_id in promise.facts.tasks & promise.facts.settled.keys():
            report.hold(executed[task_id] > 0, f"{promise.workflow_id}: task {task_id} has an outcome, and never ran")


def audit_timers(report: Report, promises: Sequence[Promise], marks: Sequence[Mark]) -> None:
    """No timer fired early, by the clock of those who ran before and after it."""
    first: dict[str, dict[str, int]] = {}
    for mark in sorted(marks, key=lambda mark: mark.at):
        first.setdefault(mark.workflow_id, {}).setdefault(mark.task_id, mark.at)
    for promise in promises:
        if promise.kind == "napping" and promise.done_at and not promise.error:
            before, after = first[promise.workflow_id].values()
            late_ms = after - before - promise.expected
            report.hold(late_ms >= 0, f"{promise.workflow_id}: its timer fired {-late_ms} ms early")
            report.late_ms_max = max(report.late_ms_max, late_ms)
