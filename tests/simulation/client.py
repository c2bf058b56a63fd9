"""A client of the simulated world: it publishes until the broker confirms, and asks until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from perdure import convert
from perdure._payloads.blobs import StoreBlobs
from perdure._payloads.edge import Edge
from perdure.task import Task
from perdure.workflow import Workflow, workflow_of
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Consumer, Delivery, RunKey
from perdure_schemas import ids, topics
from perdure_schemas.common import Address, Query
from perdure_schemas.events import RunEnded
from perdure_schemas.messages import (
    Body,
    CommandReply,
    CompleteTask,
    ControlRun,
    DispatchTask,
    Message,
    QueryResult,
    QueryRun,
    ResumeRun,
    RunResult,
    SendSignal,
    StartReply,
    StartWorkflow,
    TaskResult,
    UpdateResult,
    UpdateRun,
    WaitForResult,
    WaitForTask,
)
from tests.simulation.faulty_broker import FaultyPublisher
from tests.simulation.faulty_store import FaultyBlobs
from tests.simulation.virtual import VirtualClock, at_once
from tests.simulation.world import Process, World

T = TypeVar("T")
NAMESPACE = "default"
ASK_AGAIN_SECONDS = 4.0
RETRY_SECONDS = 0.05
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was started here."""

    workflow_id: str
    run_id: str


class Correspondent:
    """Publishes until confirmed, asks until answered; never dies, since nothing here answers for one that does."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self._process = Process(name, 1, VirtualClock(world.loop), mortal=False)
        self._publisher = FaultyPublisher(world, self._process)
        blobs = StoreBlobs(FaultyBlobs(world, self._process), NAMESPACE)
        self._edge = Edge(None, NAMESPACE, lambda: blobs, above=world.above, new_id=lambda: f"{name}-{next(self._ids)}")
        self._sealed: dict[str, Message] = {}
        self._topic = topics.inbox(name)
        self._ids = count(1)
        self._numbers = count(1)
        self._answers: dict[str, Body] = {}
        self.starts: dict[str, Message] = {}
        """By run id."""
        self._news = asyncio.Event()
        inbox = at_once(world.broker.subscribe(NAMESPACE, [self._topic], "inbox", "exclusive"))
        self._reading = world.loop.create_task(self._read(inbox))

    def close(self) -> None:
        self._reading.cancel()

    async def _read(self, inbox: Consumer) -> None:
        while True:
            batch = await inbox.receive()
            for delivery in batch:
                assert isinstance(delivery, Delivery)
                message = await self._opened(delivery.message)
                for key in (message.causation_id or "", *_keys(message.body)):
                    self._answers[key] = message.body
            await inbox.ack(batch)
            self._news.set()

    async def _opened(self, value: T) -> T:
        opening: Callable[[], Awaitable[T]] | None = self._edge.open(value)
        return value if opening is None else await opening()

    # --- sending ------------------------------------------------------------------------------------

    def message(self, key: str, body: Body) -> Message:
        return Message(
            id=f"{self.name}-{next(self._ids)}",
            namespace=NAMESPACE,
            key=key,
            at=self.world.clock.now(),
            body=body,
            emitter=self.name,
        )

    async def publish(self, topic: str, message: Message) -> None:
        """Until the broker confirms it."""
        if message.id not in self._sealed and (sealing := self._edge.seal([message])) is not None:
            (self._sealed[message.id],) = await sealing()
        message = self._sealed.get(message.id, message)
        while True:
            try:
                await self._publisher.publish([(topic, message)])
                break
            except StorageUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
        self.world.ledger.acknowledged.append(message)

    async def ask(self, topic: str, message: Message, *keys: str) -> Any:
        """The answer to a message, or to one of the keys: asked again under the same id until it comes."""
        return await self._ask(topic, lambda: message, (message.id, *keys))

    async def _ask(self, topic: str, make: Callable[[], Message], keys: tuple[str, ...]) -> Any:
        while True:
            await self.publish(topic, make())
            again_at = self.world.loop.time() + ASK_AGAIN_SECONDS
            while self.world.loop.time() < again_at:
                for key in keys:
                    if key in self._answers:
                        return self._answers.pop(key)
                self._news.clear()
                try:
                    await asyncio.wait_for(self._news.wait(), again_at - self.world.loop.time())
                except TimeoutError:
                    break


class Client(Correspondent):
    """What people do to runs and tasks."""

    async def start(self, workflow: Any, *args: Any, id: str, wait: bool = True, **changes: Any) -> Run:
        """Start a run; with `wait`, return when the engine has answered."""
        definition: Workflow[..., Any] = workflow_of(workflow)
        run_id = ids.derive_id(self.name, id, next(self._numbers))
        body = StartWorkflow(
            workflow_id=id,
            run_id=run_id,
            name=definition.name,
            args=definition.signature.bind(args, {}),
            options=definition.run_options,
            reply_topic=self._topic,
            **changes,
        )
        message = self.starts[run_id] = self.message(id, body)
        if not wait:
            await self.publish(topics.WORKFLOW_ENGINE, message)
            return Run(id, run_id)
        reply = await self.ask(topics.WORKFLOW_ENGINE, message)
        assert isinstance(reply, StartReply)
        return Run(id, reply.run_id)

    async def result(self, run: Run, generation: int = 0) -> RunResult:
        """How the run ended, in that generation or a later one."""
        body = WaitForResult(workflow_id=run.workflow_id, run_id=run.run_id, reply_topic=self._topic)
        while True:
            answer = await self._ask(topics.WORKFLOW_ENGINE, lambda: self.message(run.workflow_id, body), (run.run_id,))
            assert isinstance(answer, RunResult)
            if answer.status == "not-found":
                recorded: RunResult = await self._opened(self._from_history(run) or answer)
                answer = recorded
            if answer.status != "not-found" and answer.generation >= generation:
                return answer
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _from_history(self, run: Run) -> RunResult | None:
        """Of a run that another one has followed: the engine has only the last at hand."""
        events = at_once(self.world.store.history(RunKey(NAMESPACE, run.workflow_id), run.run_id, 0, 2**31, 2**31))
        ended = events[-1].event if events else None
        if not isinstance(ended, RunEnded):
            return None
        return RunResult(
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            status=ended.status,
            result=ended.result,
            failure=ended.failure,
            next_run_id=ended.next_run_id,
        )

    async def control(self, run: Run, action: Any) -> CommandReply:
        body = ControlRun(workflow_id=run.workflow_id, action=action, run_id=run.run_id, reply_topic=self._topic)
        reply = await self.ask(topics.WORKFLOW_ENGINE, self.message(run.workflow_id, body))
        assert isinstance(reply, CommandReply)
        return reply

    async def signal(self, workflow_id: str, channel: str, value: Any, after: int = 0) -> int:
        """Publish a signal; returns its number."""
        number = next(self._numbers)
        body = SendSignal(
            workflow_id=workflow_id,
            channel=channel,
            payload=convert.encode(value),
            sender=self.name,
            number=number,
            after_number=after,
        )
        await self.publish(topics.WORKFLOW_ENGINE, self.message(workflow_id, body))
        return number

    async def resume(self, run: Run, **changes: Any) -> CommandReply:
        to = {"workflow_id": run.workflow_id, "run_id": run.run_id, "reply_topic": self._topic}
        body = ResumeRun(**{"anyway": True, **to, **changes})
        reply = await self.ask(topics.WORKFLOW_ENGINE, self.message(run.workflow_id, body))
        assert isinstance(reply, CommandReply)
        return reply

    async def update(self, run: Run, name: str, *args: Any) -> UpdateResult:
        update_id = ids.derive_id(self.name, "update", next(self._numbers))
        body = UpdateRun(
            workflow_id=run.workflow_id,
            update_id=update_id,
            name=name,
            args=convert.encode(list(args)),
            reply_topic=self._topic,
            run_id=run.run_id,
        )
        answer = await self.ask(topics.WORKFLOW_ENGINE, self.message(run.workflow_id, body), update_id)
        assert isinstance(answer, UpdateResult)
        return answer

    async def query(self, run: Run, name: str) -> QueryResult:
        """Asked again, as people do, if so many workers died of other causes while they had it that it was refused."""
        while True:
            answer = await self._query(run, name)
            if answer.failure is None or answer.failure.name != "WorkerDied":
                return answer

    async def _query(self, run: Run, name: str) -> QueryResult:
        query_id = ids.derive_id(self.name, "query", next(self._numbers))
        query = Query(query_id=query_id, name=name, args=convert.encode([]), reply_to=Address(self._topic, ""))
        body = QueryRun(workflow_id=run.workflow_id, query=query, run_id=run.run_id)
        answer = await self.ask(topics.WORKFLOW_ENGINE, self.message(run.workflow_id, body), query_id)
        assert isinstance(answer, QueryResult)
        return answer

    # --- tasks --------------------------------------------------------------------------------------

    async def run_task(self, task: Task[..., Any], *args: Any) -> TaskResult:
        """Run a task that belongs to no run."""
        task_id = ids.derive_id(self.name, "task", next(self._numbers))
        body = DispatchTask(
            task_id=task_id,
            name=task.name,
            args=task.signature.bind(args, {}),
            options=task.task_options,
            answer_to=[Address(self._topic, task_id)],
            dispatched=False,
        )
        await self.publish(topics.TASK_ENGINE, self.message(task_id, body))
        return await self.task_result(task_id)

    async def task_result(self, task_id: str) -> TaskResult:
        body = WaitForTask(task_id=task_id, reply_topic=self._topic)
        while True:
            answer = await self._ask(topics.TASK_ENGINE, lambda: self.message(task_id, body), (task_id,))
            assert isinstance(answer, TaskResult)
            if answer.outcome != "not-found":  # the question overtook the task
                return answer
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def complete_task(self, task_id: str, value: Any) -> None:
        """Bring the outcome of a task that was delegated."""
        result = convert.encode(value)
        body = CompleteTask(task_id=task_id, outcome="completed", result=result, reply_topic=self._topic)
        while True:
            reply: CommandReply = await self.ask(topics.TASK_ENGINE, self.message(task_id, body))
            if reply.status != "not-found":
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _keys(body: Body) -> tuple[str, ...]:
    match body:
        case RunResult():
            return (body.run_id,)
        case TaskResult():
            return (body.task_id,)
        case UpdateResult():
            return (body.update_id,)
        case QueryResult():
            return (body.query_id,)
        case _:
            return ()
