"""The messages a worker sends, made in one place."""

from __future__ import annotations

from collections.abc import Callable

from perdure._worker.outbox import Step
from perdure_core.workflow_engine.dispatch import SUPERVISED_AFTER_MS
from perdure_runtime.ports import Clock, Delivery
from perdure_schemas import ids, topics
from perdure_schemas.common import Failure, Outcome, Payload, Query
from perdure_schemas.messages import (
    AttemptHeartbeat,
    AttemptOutcome,
    AttemptStarted,
    Body,
    DispatchTask,
    GetHistory,
    Message,
    MoveChecked,
    QueryResult,
    RunTask,
    TaskOutcome,
    TaskResult,
    WorkerHello,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)

UNTOLD_MS = SUPERVISED_AFTER_MS // 2
"""A success so soon after its dispatch is told to the run alone: half of the time after which the workflow engine tells
the task engine of the task, so that clocks may differ as much. If they differ by more, the task engine finds out
later."""


class Answers:
    """Makes (topic, message) pairs with the worker's header."""

    def __init__(self, *, namespace: str, worker: str, clock: Clock, ids: Callable[[], str]) -> None:
        self._namespace = namespace
        self._worker = worker
        self._clock = clock
        self._ids = ids
        self.inbox = topics.inbox(worker)

    def _message(self, key: str, body: Body, *, cause: str | None = None, id: str = "") -> Message:
        return Message(
            id=id or self._ids(),
            namespace=self._namespace,
            key=key,
            at=self._clock.now(),
            body=body,
            emitter=self._worker,
            causation_id=cause,
        )

    # --- turns --------------------------------------------------------------------------------------

    def turn(self, body: WorkflowTaskCompleted | WorkflowTaskFailed, cause: str, nonce: str = "") -> Step:
        return topics.WORKFLOW_ENGINE, self._message(body.workflow_id, body, cause=cause, id=nonce)

    def query(self, query: Query, result: QueryResult, cause: str) -> Step:
        return query.reply_to.topic, self._message(query.reply_to.key, result, cause=cause)

    def checked(self, body: MoveChecked, cause: str) -> Step:
        """However often it is answered, a question moves a run once."""
        id = ids.derive_id(body.check.question, "checked")
        return topics.WORKFLOW_ENGINE, self._message(body.workflow_id, body, cause=cause, id=id)

    def get_history(self, body: GetHistory) -> Step:
        return topics.WORKFLOW_ENGINE, self._message(body.workflow_id, body)

    def hello(self, body: WorkerHello) -> Step:
        return topics.WORKER_HELLO, self._message(self._worker, body)

    # --- attempts -----------------------------------------------------------------------------------

    def outcome(
        self,
        delivery: Delivery,
        run: RunTask,
        outcome: Outcome,
        *,
        result: Payload | None = None,
        failure: Failure | None = None,
        delegated: bool = False,
        bare: bool = False,
        announced: bool = True,
    ) -> list[Step]:
        """How an attempt ended, to each address that is to know, in the order they are given.

        A failure brings what a record of the task needs, since the task engine may not have heard of it (ADR 0018);
        but a `bare` one, of which it has: its arguments leave no room. `announced`: it knows of the attempt.
        """
        steps: list[Step] = []
        cause = delivery.message.id
        settled = outcome == "completed" and not delegated
        for address in run.answer_to:
            if address.topic == topics.TASK_ENGINE:
                if settled and not announced and self._unsupervised(delivery.message, run):
                    continue
                body: Body = AttemptOutcome(
                    task_id=run.task_id,
                    attempt_id=run.attempt_id,
                    attempt=run.attempt,
                    outcome=outcome,
                    generation=run.generation,
                    result=result,
                    failure=failure,
                    delegated=delegated,
                    task=None if settled or bare else dispatch_of(run),
                )
            elif not settled:
                continue  # whether a failure is final is the task engine's to say
            elif address.topic == topics.WORKFLOW_ENGINE:
                body = _task_outcome(run, result)
            else:
                body = TaskResult(task_id=run.task_id, outcome=outcome, result=result)
            steps.append((address.topic, self._message(address.key, body, cause=cause)))
        return steps

    def _unsupervised(self, message: Message, run: RunTask) -> bool:
        """Whether the task engine has not heard of the task, nor will."""
        return not run.supervised and self._clock.now() - message.at < UNTOLD_MS

    def started(self, run: RunTask, deliveries: int) -> Step:
        body = AttemptStarted(
            task_id=run.task_id,
            attempt_id=run.attempt_id,
            attempt=run.attempt,
            generation=run.generation,
            deliveries=deliveries,
            worker=self._worker,
            inbox=self.inbox,
            task=dispatch_of(run),
        )
        return topics.TASK_ENGINE, self._message(run.task_id, body)

    def heartbeat(self, run: RunTask, progress: Payload | None) -> Step:
        body = AttemptHeartbeat(
            task_id=run.task_id,
            attempt_id=run.attempt_id,
            attempt=run.attempt,
            generation=run.generation,
            progress=progress,
            inbox=self.inbox,
        )
        return topics.TASK_ENGINE, self._message(run.task_id, body)


def _task_outcome(run: RunTask, result: Payload | None) -> TaskOutcome:
    workflow = run.workflow
    assert workflow is not None, "checked when it was received"
    return TaskOutcome(
        workflow_id=workflow.workflow_id,
        run_id=workflow.run_id,
        command_id=run.task_id,
        generation=run.generation,
        attempt=run.attempt,
        outcome="completed",
        result=result,
    )


def dispatch_of(run: RunTask) -> DispatchTask:
    """What a record of the task needs, should the task engine have none."""
    return DispatchTask(
        task_id=run.task_id,
        name=run.name,
        args=run.args,
        options=run.options,
        answer_to=run.answer_to,
        generation=run.generation,
        dispatched=True,
        attempt=run.attempt,
        workflow=run.workflow,
    )
