"""The worker's side of the broker: receives, dispatches, answers. No user code runs on its loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure._replay.code import WorkflowCode
from perdure._worker.answers import Answers
from perdure._worker.attempts import DEATHS_MAX, Attempts
from perdure._worker.histories import Histories
from perdure._worker.live import CACHE_BYTES, LiveInstances
from perdure._worker.outbox import Acks, Answer, Outbox
from perdure._worker.processes import ProcessTasks
from perdure._worker.threads import InlineTasks, Threads, ThreadTasks
from perdure._worker.turn_thread import InlineTurns, TurnRunner, TurnThread
from perdure._worker.turns import NeedsHistory, TurnAnswer, TurnDesk, TurnJob, TurnResult
from perdure._worker.user_loop import AsyncTasks, UserLoop
from perdure.registry import Registry
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Broker, Clock, Consumer, Delivery, Publisher, SubscriptionType, Undeliverable
from perdure_schemas import topics
from perdure_schemas.common import Failure
from perdure_schemas.messages import (
    AttemptCancelRequested,
    Body,
    HistoryPage,
    RunTask,
    RunWorkflowTask,
    WorkerHello,
)

log = logging.getLogger("perdure.worker")

SUBSCRIPTION = "workers"
"""All workers share it: a turn or an attempt goes to one of them."""
HELLO_SECONDS = 10.0
"""Routing and the list of workers take three missed ones for the worker's end."""
SWEEP_SECONDS = 0.5
RECEIVE_MAX = 256
RETRY_SECONDS = 0.5
"""After a consumer's error, before it is asked again."""
DRAIN_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a worker is made of."""

    broker: Broker
    registry: Registry
    clock: Clock
    ids: Callable[[], str]
    namespace: str
    build: str
    worker: str
    slots: int
    inline_turns: bool
    cache_bytes: int = CACHE_BYTES


class Session:
    """One life of a worker, from `open` to `close`. Made on the loop it lives on."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._publisher: Publisher = setup.broker.publisher()
        self.outbox = Outbox(self._publisher)
        self._answers = Answers(namespace=setup.namespace, worker=setup.worker, clock=setup.clock, ids=setup.ids)
        self.attempts = Attempts(setup.registry.tasks, self.outbox, self._answers, slots=setup.slots)
        self.histories = Histories(
            lambda question: self.outbox.add(Answer([self._answers.get_history(question)])),
            self._submit,
            self._history_missing,
            reply_topic=self._answers.inbox,
        )
        self._codes: Mapping[str, WorkflowCode] = {n: found.code for n, found in setup.registry.workflows.items()}
        self._desk = self._make_desk()
        """For the answers that need no turn; in simulations for all."""
        self._turns: TurnRunner | None = None
        self._user_loop: UserLoop | None = None
        self._threads = Threads()
        self._processes: ProcessTasks | None = None
        self._all_acks: list[Acks] = []
        self._turn_acks: Acks | None = None
        self._turns_open = 0
        self._receivers: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []

    # --- opening and closing ------------------------------------------------------------------------

    async def open(self) -> None:
        setup = self._setup
        self._open_user_side()
        inbox = await self._subscribe([self._answers.inbox], "inbox", "exclusive")
        self._receive(inbox, self._on_inbox)
        workflows = [
            topic for name in setup.registry.workflows for topic in _both(topics.workflow_run, name, setup.build)
        ]
        if workflows:
            self._turn_acks = await self._subscribe(workflows, SUBSCRIPTION, "key-shared")
            self._receive(self._turn_acks, self._on_turns)
        tasks = [topic for name in setup.registry.tasks for topic in _both(topics.task_run, name, setup.build)]
        if tasks:
            acks = self.attempts.acks = await self._subscribe(tasks, SUBSCRIPTION, "shared")
            self._receive(acks, self._on_tasks, free=self._free_slots)
        self._background += [self._spawn(self.outbox.run()), self._spawn(self._announce())]
        self._background += [self._spawn(acks.run()) for acks in self._all_acks]

    def _open_user_side(self) -> None:
        report = self.attempts.report
        if self._setup.inline_turns:
            self._turns = InlineTurns(self._desk, self._on_turns_done)
            inline = InlineTasks(report)
            self.attempts.executors = {"async": AsyncTasks(self._loop, report), "thread": inline, "process": inline}
            return
        self._turns = TurnThread(self._make_desk, self._on_turns_done, self._loop)
        self._user_loop = UserLoop()
        self._processes = ProcessTasks(self._threads, report)
        self.attempts.executors = {
            "async": AsyncTasks(self._user_loop.loop, report),
            "thread": ThreadTasks(self._threads, report),
            "process": self._processes,
        }

    def _make_desk(self) -> TurnDesk:
        setup = self._setup
        live = LiveInstances(setup.cache_bytes)
        return TurnDesk(self._codes, live, namespace=setup.namespace, build=setup.build, ids=setup.ids)

    async def stop_receiving(self) -> None:
        for receiver in self._receivers:
            receiver.cancel()
        await asyncio.gather(*self._receivers, return_exceptions=True)
        self._receivers.clear()

    async def finish(self, grace_seconds: float) -> None:
        """Wait until all that was received is answered; then stop what is not: `close` hands it back."""
        deadline = self._loop.time() + grace_seconds
        while not self._idle and self._loop.time() < deadline:  # noqa: ASYNC110  # once in a life
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        self.attempts.give_up()

    @property
    def _idle(self) -> bool:
        busy = self.attempts.running or self._turns_open or not self.outbox.idle
        return not busy and all(acks.idle for acks in self._all_acks)

    async def close(self) -> None:
        """Stop at once. What is not acknowledged goes to somebody else."""
        self.histories.close()
        for task in (*self._receivers, *self._background):
            task.cancel()
        await asyncio.gather(*self._receivers, *self._background, return_exceptions=True)
        for acks in self._all_acks:
            await acks.consumer.close()
        if self._setup.inline_turns:
            self._stop_user_side()
        else:  # threads are waited for, a moment; the loop has others to serve meanwhile
            await self._loop.run_in_executor(None, self._stop_user_side)

    def _stop_user_side(self) -> None:
        if self._turns is not None:
            self._turns.stop()
        if self._user_loop is not None:
            self._user_loop.stop()
        if self._processes is not None:
            self._processes.stop()
        self._threads.stop()

    async def failed(self) -> None:
        """Returns never; raises what ended one of the loops that must not end."""
        done, _ = await asyncio.wait([*self._receivers, *self._background], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._loop.create_task(coroutine)

    async def _subscribe(self, names: Sequence[str], subscription: str, kind: SubscriptionType) -> Acks:
        consumer = await self._setup.broker.subscribe(self._setup.namespace, names, subscription, kind)
        acks = Acks(consumer)
        self._all_acks.append(acks)
        return acks

    # --- receiving ----------------------------------------------------------------------------------

    def _receive(
        self,
        acks: Acks,
        handle: Callable[[list[Delivery], Acks], None],
        *,
        free: Callable[[], Coroutine[Any, Any, int]] | None = None,
    ) -> None:
        self._receivers.append(self._spawn(self._receive_forever(acks, handle, free)))

    async def _receive_forever(
        self,
        acks: Acks,
        handle: Callable[[list[Delivery], Acks], None],
        free: Callable[[], Coroutine[Any, Any, int]] | None,
    ) -> None:
        consumer: Consumer = acks.consumer
        while True:
            limit = RECEIVE_MAX if free is None else min(await free(), RECEIVE_MAX)
            try:
                batch = await consumer.receive(limit)
            except StorageUnavailable as error:
                log.warning("receive_retried", extra={"action": "receive_retried", "error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
                continue
            deliveries = [item for item in batch if isinstance(item, Delivery)]
            if len(deliveries) < len(batch):
                await self._bury([item for item in batch if isinstance(item, Undeliverable)], acks)
            handle(deliveries, acks)

    async def _free_slots(self) -> int:
        while self.attempts.free <= 0:
            self.attempts.freed.clear()
            await self.attempts.freed.wait()
        return self.attempts.free

    async def _bury(self, unreadable: Sequence[Undeliverable], acks: Acks) -> None:
        """What cannot be decoded goes to the dead letters, where people find it."""
        for item in unreadable:
            log.error("message_undecodable", extra={"action": "message_undecodable", "topic": item.topic})
            topic = topics.dead_letters(item.topic)
            try:
                await self._publisher.publish_raw(topic, self._setup.namespace, item.data, item.error)
            except StorageUnavailable:
                await acks.consumer.nack([item], delay_ms=1_000)
            else:
                acks.add([item])

    def _reject(self, delivery: Delivery, acks: Acks) -> None:
        """A message of a kind that has no business on its topic."""
        log.error("message_misplaced", extra={"action": "message_misplaced", "topic": delivery.topic})
        self.outbox.add(Answer([(topics.dead_letters(delivery.topic), delivery.message)], [delivery], acks))

    def _on_inbox(self, deliveries: list[Delivery], acks: Acks) -> None:
        for delivery in deliveries:
            match delivery.message.body:
                case HistoryPage() as page:
                    self.histories.receive(page)
                case AttemptCancelRequested() as request:
                    self.attempts.cancel(request)
                case _:
                    log.warning("inbox_ignored", extra={"action": "inbox_ignored"})
        acks.add(deliveries)

    def _on_tasks(self, deliveries: list[Delivery], acks: Acks) -> None:
        runs: list[Delivery] = []
        for delivery in deliveries:
            if _is_attempt(delivery.message.body):
                runs.append(delivery)
            else:
                self._reject(delivery, acks)
        self.attempts.accept(runs)

    # --- turns --------------------------------------------------------------------------------------

    def _on_turns(self, deliveries: list[Delivery], acks: Acks) -> None:
        jobs: list[TurnJob] = []
        for delivery in deliveries:
            task = delivery.message.body
            if not isinstance(task, RunWorkflowTask):
                self._reject(delivery, acks)
                continue
            job = TurnJob(task, delivery)
            self._turns_open += 1
            if delivery.redeliveries >= DEATHS_MAX and not task.queries:
                message = f"{delivery.redeliveries} workers died or lost their broker during this turn"
                failure = Failure(name="WorkerDied", message=message)
                self._answer_turn(job, TurnAnswer(failed=self._desk.failure(task, "worker-died", failure)))
            else:
                jobs.append(job)
        if jobs:
            self._submit(jobs)

    def _submit(self, jobs: list[TurnJob]) -> None:
        assert self._turns is not None
        self._turns.submit(jobs)

    def _on_turns_done(self, results: list[tuple[TurnJob, TurnResult]]) -> None:
        for job, result in results:
            if isinstance(result, NeedsHistory):
                self.histories.fetch(job)
            else:
                self._answer_turn(job, result)

    def _history_missing(self, job: TurnJob) -> None:
        message = f"the engine has no history of this run up to event {job.task.committed}"
        failure = Failure(name="HistoryMissing", message=message)
        self._answer_turn(job, TurnAnswer(failed=self._desk.failure(job.task, "timeout", failure)))

    def _answer_turn(self, job: TurnJob, answer: TurnAnswer) -> None:
        delivery, task = job.delivery, job.task
        self._turns_open -= 1
        cause = delivery.message.id
        steps = [self._answers.query(query, result, cause) for query, result in answer.queries]
        body = answer.completed or answer.failed
        if body is not None:
            steps.append(self._answers.turn(body, cause, answer.nonce))

        def too_large(problem: str) -> Sequence[tuple[str, Any]]:
            failure = Failure(name="MessageTooLarge", message=f"the turn's commands cannot be sent: {problem}")
            return [self._answers.turn(self._desk.failure(task, "bug", failure), cause)]

        self.outbox.add(Answer(steps, [delivery], self._turn_acks, instead=too_large))

    # --- now and then -------------------------------------------------------------------------------

    async def _announce(self) -> None:
        registry = self._setup.registry
        hello = WorkerHello(
            worker=self._setup.worker,
            build=self._setup.build,
            workflows=sorted(registry.workflows),
            tasks=sorted(registry.tasks),
            slots=self._setup.slots,
        )
        next_hello = 0.0
        while True:
            if self._loop.time() >= next_hello:
                next_hello = self._loop.time() + HELLO_SECONDS
                self.outbox.add(Answer([self._answers.hello(hello)]))
            self.attempts.announce_long()
            await asyncio.sleep(SWEEP_SECONDS)


def _is_attempt(body: Body) -> bool:
    """Whether it is a RunTask that can be answered: one for a workflow engine must name its run."""
    if not isinstance(body, RunTask):
        return False
    return body.workflow is not None or all(address.topic != topics.WORKFLOW_ENGINE for address in body.answer_to)


def _both(topic: Callable[[str, str | None], str], name: str, build: str) -> tuple[str, str]:
    """The topic for any build, and the one for ours."""
    return topic(name, None), topic(name, build)
