"""Turns on the messaging side: from their delivery, over a history if it is needed, to their answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from perdure._worker.answers import Answers
from perdure._worker.histories import Histories, Opener
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

    def __init__(self, outbox: Outbox, answers: Answers, desk: TurnDesk, lacking: Lacking, *, opener: Opener) -> None:
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
        self._waiting: deque[TurnJob] = deque()
        """Those that have not begun: the runner has enough."""
        self._begun = 0
        """How many the runner has."""
        self._beginning = False
        self._deciding: dict[str, TurnJob] = {}
        """Those that decide something, by the turn's id."""
        self.histories = Histories(
            lambda question: outbox.add(Answer([answers.get_history(question)])),
            self._submit,
            self._history_missing,
            opener=opener,
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
                self._join(twin, delivery)
                continue
            job = TurnJob(task, delivery)
            self.open += 1
            if _decides(task):
                self._deciding[task.workflow_task_id] = job
            if delivery.deaths >= DEATHS_MAX:
                what = "this turn" if _decides(task) else "this question"
                message = f"{delivery.deaths} workers died or lost their broker during {what}"
                self._answer(job, self._failed(job, "worker-died", "WorkerDied", message))
            else:
                jobs.append(job)
        if jobs:
            self._submit(jobs)

    def done(self, results: list[tuple[TurnJob, TurnResult]]) -> None:
        """Called by the runner, on the loop."""
        self._begun -= len(results)
        self._begin()
        for job, result in results:
            if isinstance(result, NeedsHistory):
                self.histories.fetch(job, result.after_seq)
            else:
                self._answer(job, result)

    def _join(self, job: TurnJob, delivery: Delivery) -> None:
        """The same turn again: one answer is for both, and both die of it."""
        assert self.inlet is not None
        job.twins.append(delivery)
        if job.begun:
            self.inlet.begin([delivery], lambda: None)

    def _submit(self, jobs: list[TurnJob]) -> None:
        self._waiting += jobs
        self._begin()

    def _begin(self) -> None:
        """Give the runner what it may have at a time, a handful at once: a mark for each turn would cost too much."""
        runner = self.runner
        assert self.inlet is not None
        assert runner is not None
        if self._beginning:
            return  # inline turns are done, and tell so, before `submit` returns
        self._beginning = True
        while self._waiting and self._begun <= runner.begun_max // 2:
            room = runner.begun_max - self._begun
            jobs = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._begun += len(jobs)
            for job in jobs:
                job.begun = True
            deliveries = [delivery for job in jobs for delivery in (job.delivery, *job.twins)]
            if not self.inlet.begin(deliveries, partial(self._go_on, jobs)):
                return
            runner.submit(jobs)
        self._beginning = False

    def _go_on(self, jobs: list[TurnJob]) -> None:
        """They have been marked now."""
        assert self.runner is not None
        self.runner.submit(jobs)
        self._beginning = False
        self._begin()

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
