"""Decision turns, as they are done on the workflow thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from perdure._replay.code import RunContext, WorkflowCode
from perdure._replay.guard import seeds
from perdure._replay.instance import Instance
from perdure._worker.live import LiveInstances
from perdure.errors import Blocked
from perdure.failures import UNKNOWN_WORKFLOW, failure_from_exception
from perdure_core.history import effective
from perdure_runtime.ports import Delivery
from perdure_schemas.common import Failure, Query
from perdure_schemas.events import Recorded, Started, StuckKind, TurnCommitted
from perdure_schemas.messages import (
    MoveChecked,
    QueryResult,
    RunWorkflowTask,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)


@dataclass(slots=True, eq=False)
class TurnJob:
    """One delivery of a turn. `records` is the committed history, once it was asked for."""

    task: RunWorkflowTask
    delivery: Delivery
    records: Sequence[Recorded] | None = None
    twins: list[Delivery] = field(default_factory=list)
    """The same turn again, before it was answered: one answer is for all."""
    begun: bool = False
    """Whether the runner has it."""


@dataclass(slots=True, eq=False)
class TurnAnswer:
    """What a turn gave. Neither `completed` nor `failed`: only queries were asked, or a check."""

    nonce: str = ""
    completed: WorkflowTaskCompleted | None = None
    failed: WorkflowTaskFailed | None = None
    queries: list[tuple[Query, QueryResult]] = field(default_factory=list)
    checked: MoveChecked | None = None


@dataclass(frozen=True, slots=True)
class NeedsHistory:
    """The committed history must be fetched, and the job given again."""

    after_seq: int = 0
    """What a live instance has been fed already; 0: all of it, since there is none."""


TurnResult = TurnAnswer | NeedsHistory


class TurnDesk:
    """Takes jobs and does their turns, on live instances where it can. Everything runs on one thread."""

    def __init__(
        self,
        workflows: Mapping[str, WorkflowCode],
        cache: LiveInstances,
        *,
        namespace: str,
        build: str,
        ids: Callable[[], str],
        tells_values: bool = True,
    ) -> None:
        self._workflows = workflows
        self._cache = cache
        self._namespace = namespace
        self._build = build
        self._ids = ids
        self._tells_values = tells_values

    def run(self, job: TurnJob) -> TurnResult:
        """Never raises: what a job does to itself is its answer."""
        try:
            return self._run(job)
        except BaseException as error:  # our own bug, or an interrupt that came late: the run must hear of it
            return self.failed(job, error)

    def failed(self, job: TurnJob, error: BaseException) -> TurnAnswer:
        """The answer to a turn that broke off, whose instance may be anywhere."""
        self._cache.discard(job.task.workflow_id, job.task.run_id)
        kind: StuckKind = "timeout" if isinstance(error, Blocked) else "bug"
        return self.refusal(job.task, kind, failure_from_exception(error))

    def timed_out(self, job: TurnJob, seconds: float) -> TurnAnswer:
        """The answer to a turn that another desk does not end."""
        message = f"the turn has not ended within {seconds:.0f} s and could not be interrupted"
        return self.refusal(job.task, "timeout", Failure(name="Blocked", message=message))

    def close(self) -> None:
        """Evict everything: no finalizer of workflow code may run at another time, on another thread."""
        self._cache.clear()

    def _run(self, job: TurnJob) -> TurnResult:
        task = job.task
        code = self._workflows.get(task.name)
        if code is None:
            return self._unknown(task)
        if task.check is not None:
            return self._check(code, task, job.records) if _whole(job.records) else NeedsHistory()
        instance, events = self._cache.get(task.workflow_id, task.run_id), task.events
        if instance is not None and not self._holds(instance, task):
            lacking = _lacking(instance, job)
            if isinstance(lacking, NeedsHistory):
                return lacking
            instance, events = (None, events) if lacking is None else (instance, lacking)
        if instance is None:
            if _first_turn(task):
                instance = Instance(code, self._context(task, task.events[0]), tells_values=self._tells_values)
            elif _whole(job.records):
                instance = self._rebuild(code, task, job.records)
            else:
                return NeedsHistory()
            self._cache.put(task.workflow_id, task.run_id, instance)
        if task.queries:
            return TurnAnswer(queries=[(query, self._query(instance, query)) for query in task.queries])
        return self._turn(instance, task, events)

    def _holds(self, instance: Instance, task: RunWorkflowTask) -> bool:
        """Whether this live instance is where the turn begins, or has just done this very turn."""
        if instance.context.generation != task.generation:
            return False
        if instance.base_hash == task.previous_hash and instance.nonce == task.previous_nonce:
            return instance.nonce != ""
        return not task.queries and instance.base_hash == task.base_hash and instance.completed is not None

    def _rebuild(self, code: WorkflowCode, task: RunWorkflowTask, records: Sequence[Recorded]) -> Instance:
        known = [record for record in records if record.seq <= task.committed]
        carried = [record for record in task.events if record.seq > task.committed]
        instance = Instance(code, self._context(task, (known or carried)[0]), tells_values=self._tells_values)
        instance.base_hash = task.previous_hash
        instance.nonce = task.previous_nonce
        instance.replay(effective(known))
        return instance

    def _check(self, code: WorkflowCode, task: RunWorkflowTask, records: Sequence[Recorded]) -> TurnAnswer:
        """Whether this build replays the history; nothing else comes of it."""
        instance = self._rebuild(code, task, records)
        instance.evict()
        return _checked(task, None if instance.stoppage is None else instance.stoppage.failure)

    def _context(self, task: RunWorkflowTask, first: Recorded) -> RunContext:
        started = first.event
        if not isinstance(started, Started):
            raise TypeError(f"the history of {task.workflow_id} begins with {type(started).__name__}, not Started")
        return RunContext(
            namespace=self._namespace,
            workflow_id=task.workflow_id,
            run_id=task.run_id,
            name=task.name,
            started_at=first.at,
            tags=tuple(started.options.tags),
            generation=task.generation,
            parent=started.parent,
            build=started.build,
        )

    def _turn(self, instance: Instance, task: RunWorkflowTask, events: Sequence[Recorded]) -> TurnAnswer:
        if instance.base_hash == task.base_hash and instance.completed is not None:
            return TurnAnswer(instance.nonce, instance.completed)
        turn = instance.turn(events, base=task.base, generation=task.generation, adoptable=task.adoptable)
        if turn.stoppage is not None:
            self._cache.discard(task.workflow_id, task.run_id)
            return TurnAnswer(failed=self._failure(task, turn.stoppage.kind, turn.stoppage.failure))
        completed = WorkflowTaskCompleted(
            workflow_id=task.workflow_id,
            run_id=task.run_id,
            workflow_task_id=task.workflow_task_id,
            generation=task.generation,
            committed=task.committed,
            base=task.base,
            base_hash=task.base_hash,
            hashes=task.hashes,
            commands=turn.commands,
            waits_for=turn.waits_for,
            completion=turn.completion,
            patches=turn.patches,
            build=self._build,
            python=seeds.PYTHON,
        )
        nonce = self._ids()
        instance.remember(task.base_hash, nonce, completed)
        self._cache.put(task.workflow_id, task.run_id, instance)
        return TurnAnswer(nonce, completed)

    def _query(self, instance: Instance, query: Query) -> QueryResult:
        if instance.stoppage is not None:
            return QueryResult(query_id=query.query_id, status="refused", failure=instance.stoppage.failure)
        try:
            result = instance.query(query.name, query.args)
        except BaseException as error:  # user code: a query must not end the thread, whatever it raises
            return QueryResult(query_id=query.query_id, status="refused", failure=failure_from_exception(error))
        return QueryResult(query_id=query.query_id, status="ok", result=result)

    def _unknown(self, task: RunWorkflowTask) -> TurnAnswer:
        registered = ", ".join(sorted(self._workflows)) or "none"
        failure = Failure(
            name=UNKNOWN_WORKFLOW,
            message=f"this worker has no workflow {task.name!r}; it has: {registered}",
            retryable=False,
        )
        return self.refusal(task, "bug", failure)

    def refusal(self, task: RunWorkflowTask, kind: StuckKind, failure: Failure) -> TurnAnswer:
        """The answer to a turn that is not done: to its queries or its check, where it has some."""
        if task.queries:
            refused = [(q, QueryResult(query_id=q.query_id, status="refused", failure=failure)) for q in task.queries]
            return TurnAnswer(queries=refused)
        if task.check is not None:
            return _checked(task, failure)
        return TurnAnswer(failed=self._failure(task, kind, failure))

    def _failure(self, task: RunWorkflowTask, kind: StuckKind, failure: Failure) -> WorkflowTaskFailed:
        return WorkflowTaskFailed(
            workflow_id=task.workflow_id,
            run_id=task.run_id,
            workflow_task_id=task.workflow_task_id,
            base=task.base,
            base_hash=task.base_hash,
            generation=task.generation,
            attempt=task.attempt,
            kind=kind,
            failure=failure,
            build=self._build,
        )


def _whole(records: Sequence[Recorded] | None) -> TypeGuard[Sequence[Recorded]]:
    """Whether it is a history from its first event on."""
    return records is not None and (not records or records[0].seq == 1)


def _lacking(instance: Instance, job: TurnJob) -> list[Recorded] | NeedsHistory | None:
    """What a live instance has not been fed of a turn whose events were too many for its message; `None`: such a turn
    does not follow on what this instance has done."""
    task, done = job.task, instance.completed
    left_out = not (task.events or task.queries or task.previous_nonce)
    if not left_out or done is None or task.generation != instance.context.generation or done.base >= task.base:
        return None
    if job.records is None:
        return NeedsHistory(done.base)
    later = [record for record in job.records if record.seq > done.base]
    turns = [record.event for record in later if isinstance(record.event, TurnCommitted)]
    if not turns or any((turn.base, turn.nonce) != (done.base, instance.nonce) for turn in turns):
        return None  # another worker has done the turns since
    return [record for record in later if not isinstance(record.event, TurnCommitted)]


def _checked(task: RunWorkflowTask, failure: Failure | None) -> TurnAnswer:
    check = task.check
    assert check is not None
    return TurnAnswer(
        checked=MoveChecked(workflow_id=task.workflow_id, run_id=task.run_id, check=check, failure=failure)
    )


def _first_turn(task: RunWorkflowTask) -> bool:
    """Whether the message itself carries the whole history."""
    return not task.previous_nonce and not task.generation and bool(task.events) and task.events[0].seq == 1
