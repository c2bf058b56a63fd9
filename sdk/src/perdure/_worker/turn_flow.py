"""Turns on the messaging side: from their delivery, over a history if it is needed, to their answer."""

from __future__ import annotations

from collections.abc import Sequence

from perdure._worker.answers import Answers
from perdure._worker.histories import Histories
from perdure._worker.inlet import Inlet
from perdure._worker.notices import Lacking, Stuck
from perdure._worker.outbox import Answer, Outbox, Step
from perdure._worker.turn_thread import TurnRunner
from perdure._worker.turns import NeedsHistory, TurnAnswer, TurnDesk, TurnJob, TurnResult
from perdure._worker.ward import DEATHS_MAX
from perdure.failures import readable
from perdure_runtime.ports import Delivery
from perdure_schemas.common import Failure
from perdure_schemas.events import StuckKind
from perdure_schemas.messages import RunWorkflowTask


class TurnFlow:
    """Every turn gets an answer: only the engine may judge that one is out of date."""

    def __init__(self, outbox: Outbox, answers: Answers, desk: TurnDesk, lacking: Lacking) -> None:
        """`desk` makes the answers of turns that are not run; `lacking` looks at what is called."""
        self._outbox = outbox
        self._answers = answers
        self._desk = desk
        self._lacking = lacking
        self._stuck = Stuck()
        self.runner: TurnRunner | None = None
        self.inlet: Inlet | None = None
        self.open = 0
        """Turns received and not yet answered."""
        self._deciding: dict[str, TurnJob] = {}
        """Those that decide something, by the turn's id."""
        self.histories = Histories(
            lambda question: outbox.add(Answer([answers.get_history(question)])),
            self._submit,
            self._history_missing,
            reply_topic=answers.inbox,
        )

    def accept(self, deliveries: list[Delivery]) -> None:
        assert self.inlet is not None
        jobs: list[TurnJob] = []
        for delivery in deliveries:
            task = delivery.message.body
            if not isinstance(task, RunWorkflowTask):
                self.inlet.reject(delivery)
                continue
            twin = self._deciding.get(task.workflow_task_id) if _decides(task) else None
            if twin is not None:  # answered twice, its commands would be published twice
                twin.twins.append(delivery)
                continue
            job = TurnJob(task, delivery)
            self.open += 1
            if _decides(task):
                self._deciding[task.workflow_task_id] = job
            if delivery.deaths >= DEATHS_MAX and not task.queries:
                message = f"{delivery.deaths} workers died or lost their broker during this turn"
                self._answer(job, self._failed(job, "worker-died", "WorkerDied", message))
            else:
                jobs.append(job)
        if jobs:
            self._submit(jobs)

    def done(self, results: list[tuple[TurnJob, TurnResult]]) -> None:
        """Called by the runner, on the loop."""
        for job, result in results:
            if isinstance(result, NeedsHistory):
                self.histories.fetch(job)
            else:
                self._answer(job, result)

    def _submit(self, jobs: list[TurnJob]) -> None:
        assert self.runner is not None
        self.runner.submit(jobs)

    def _history_missing(self, job: TurnJob) -> None:
        message = f"the engine has no history of this run up to event {job.task.committed}"
        self._answer(job, self._failed(job, "timeout", "HistoryMissing", message))

    def _failed(self, job: TurnJob, kind: StuckKind, name: str, message: str) -> TurnAnswer:
        return self._desk.refusal(job.task, kind, Failure(name=name, message=message))

    def _answer(self, job: TurnJob, answer: TurnAnswer) -> None:
        assert self.inlet is not None
        self.open -= 1
        if _decides(job.task):
            self._deciding.pop(job.task.workflow_task_id, None)
        if answer.completed is not None:
            self._lacking.look(answer.completed.commands, job.task.name)
        elif answer.failed is not None:
            self._stuck.tell(job.task, answer.failed)

        def unsendable(error: Exception) -> Sequence[Step]:
            message = f"the answer cannot be sent: {readable(error)}"
            return self._steps(job, self._failed(job, "bug", type(error).__name__, message))

        deliveries = [job.delivery, *job.twins]
        self._outbox.add(Answer(self._steps(job, answer), deliveries, self.inlet.acks, instead=unsendable))

    def _steps(self, job: TurnJob, answer: TurnAnswer) -> list[Step]:
        cause = job.delivery.message.id
        steps = [self._answers.query(query, result, cause) for query, result in answer.queries]
        if answer.checked is not None:
            steps.append(self._answers.checked(answer.checked, cause))
        body = answer.completed or answer.failed
        if body is not None:
            steps.append(self._answers.turn(body, cause, answer.nonce))
        return steps


def _decides(task: RunWorkflowTask) -> bool:
    """Whether it is a turn: queries and checks change nothing."""
    return not task.queries and task.check is None
