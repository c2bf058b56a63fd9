"""Clients start runs and tasks, wait for them, and steer them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, TypeVarTuple, overload

from perdure import convert
from perdure._client import answers
from perdure._client.backend import Backend
from perdure._client.requests import Question, Requests
from perdure._client.signals import Signals
from perdure._duration import Duration
from perdure._ids import IdSource
from perdure._names import check_workflow_id
from perdure.errors import PerdureError
from perdure.handle import Decode, Handle, TaskHandle, run_value, task_value
from perdure.task import Task
from perdure.workflow import HasRun, Workflow, workflow_of
from perdure_runtime.ports import RunFilter, RunPage
from perdure_schemas import topics
from perdure_schemas.common import Address, ConflictPolicy, Payload
from perdure_schemas.messages import DispatchTask, Message, StartReply, StartWorkflow, TaskResult, WaitForResult

if TYPE_CHECKING:
    from perdure._replay.futures import Deferred
    from perdure.sync import SyncClient

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ts = TypeVarTuple("Ts")

Wait: TypeAlias = Literal["accepted", "sent"]

LIST_MAX = 100
"""Runs on one page, unless told otherwise."""
_START_OPTIONS = frozenset({"id", "conflict", "timeout", "retention", "tags", "attributes", "memo", "build", "wait"})
_TASK_OPTIONS = frozenset({"id"})


class HasRunPositional(Protocol[*Ts, R_co]):
    """What a workflow class has, seen by its positional parameters."""

    def run(self, *args: *Ts) -> Coroutine[Any, Any, R_co]: ...


class Client:
    """Open it by `async with`. One client may be used by any number of tasks of its event loop.

        async with Client.embedded(my_app) as client:
            print(await client.execute(order, "sku-1"))

    Options of a start may be given beside positional arguments, `client.start(order, "sku-1", id="o-1")`, or, as types
    need it when arguments go by keyword, before them: `client.start(order.options(id="o-1"), sku="sku-1")`.
    """

    def __init__(self, backend: Backend) -> None:
        """Use `Client.embedded` or `Client.connect`."""
        self._backend = backend
        self._new_id = IdSource()
        self.id = self._new_id()
        """Of this client: the sender of its signals, and the name of its inbox."""
        self._requests: Requests | None = None
        self._signals: Signals | None = None

    @classmethod
    def embedded(
        cls,
        *objects: object,
        db: str | Path = ":memory:",
        services: Sequence[object] = (),
        namespace: str = "default",
        slots: int | None = None,
        worker: bool = True,
    ) -> Self:
        """A client with engine and worker in this process.

        Args:
            objects: what the worker runs: modules, tasks, workflows.
            db: a SQLite file, whose open runs go on; in memory unless given.
            services: implementations of services.
            slots: attempts of tasks at a time.
            worker: False runs the engine alone.
        """
        from perdure._client.embedded import EmbeddedBackend

        return cls(EmbeddedBackend(objects, db=db, services=services, namespace=namespace, slots=slots, worker=worker))

    @classmethod
    def connect(cls, path: str | Path, namespace: str = "default") -> Self:
        """A client of an engine on this machine that listens on a socket, such as `perdure dev`."""
        from perdure._client.connected import SocketBackend

        return cls(SocketBackend(Path(path), namespace))

    async def __aenter__(self) -> Self:
        requests = Requests(self._backend, self.id, topics.inbox(self.id))
        await self._backend.open(self.id, requests.deliver)
        self._requests = requests
        self._signals = Signals(requests, self.id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = self._signals = None
        await self._backend.close()

    def _opened(self) -> tuple[Requests, Signals]:
        if self._requests is None or self._signals is None:
            raise PerdureError("the client is not open: use it inside `async with client:`")
        return self._requests, self._signals

    def waiting(self) -> list[Question]:
        """Calls under way that have no answer yet: for test environments."""
        return [] if self._requests is None else self._requests.waiting()

    @property
    def sync(self) -> SyncClient:
        """The blocking face, for programs without an event loop: `with Client.embedded(app).sync as client:`."""
        from perdure.sync import SyncClient

        return SyncClient(self)

    # --- runs ---------------------------------------------------------------------------------------

    @overload
    async def start(self, workflow: str, /, *args: Any, wait: Wait = "accepted", **options: Any) -> Handle[Any]: ...
    @overload
    async def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    @overload
    async def start(self, workflow: type[HasRun[P, R]], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    @overload
    async def start(
        self,
        workflow: Callable[[*Ts], Deferred[R]],
        /,
        *args: *Ts,
        id: str | None = None,
        conflict: ConflictPolicy | None = None,
        timeout: Duration | None = None,
        retention: Duration | None = None,
        tags: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        memo: Any = None,
        build: str | None = None,
        wait: Wait = "accepted",
    ) -> Handle[R]: ...
    @overload
    async def start(
        self,
        workflow: type[HasRunPositional[*Ts, R]],
        /,
        *args: *Ts,
        id: str | None = None,
        conflict: ConflictPolicy | None = None,
        timeout: Duration | None = None,
        retention: Duration | None = None,
        tags: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        memo: Any = None,
        build: str | None = None,
        wait: Wait = "accepted",
    ) -> Handle[R]: ...
    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take *Ts
        """Start a run; returns when the engine has recorded it, or with wait="sent" when the broker has it.

        `workflow` is a workflow, a workflow class, or a name. For the options see `Workflow.options`.

        Raises:
            AlreadyStarted: a run with this id is in force, and the conflict policy is "fail".
            SerializationError, PayloadTooLarge: an argument cannot travel.
            Unavailable: the broker did not take it.
        """
        handle, message, options = self._prepared(workflow, args, kwargs)
        requests, _ = self._opened()
        if options.get("wait") == "sent":
            await requests.backend.publish(topics.WORKFLOW_ENGINE, message)
            return handle
        reply: StartReply = await requests.ask(topics.WORKFLOW_ENGINE, message)
        return self._accepted(handle, reply)

    @overload
    async def execute(self, workflow: str, /, *args: Any, **options: Any) -> Any: ...
    @overload
    async def execute(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(self, workflow: type[HasRun[P, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(
        self,
        workflow: Callable[[*Ts], Deferred[R]],
        /,
        *args: *Ts,
        id: str | None = None,
        conflict: ConflictPolicy | None = None,
        tags: Sequence[str] | None = None,
    ) -> R: ...
    @overload
    async def execute(
        self,
        workflow: type[HasRunPositional[*Ts, R]],
        /,
        *args: *Ts,
        id: str | None = None,
        conflict: ConflictPolicy | None = None,
        tags: Sequence[str] | None = None,
    ) -> R: ...
    async def execute(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take *Ts
        """Start a run and return its result: `start` and `Handle.result` in one, and cheaper."""
        handle, message, _ = self._prepared(workflow, args, kwargs)
        requests, _ = self._opened()
        body = WaitForResult(workflow_id=handle.id, run_id=handle.run_id, reply_topic=requests.reply_topic)
        question = requests.question(message.id, handle.run_id, until_end=True)
        try:
            question.publish(topics.WORKFLOW_ENGINE, message)
            question.repeat(topics.WORKFLOW_ENGINE, lambda: requests.message(handle.id, body))
            answer = await question.answer
        finally:
            question.close()
        if isinstance(answer, StartReply):
            return await self._accepted(handle, answer).result()
        if answer.status in {"not-found", "continued-as-new"}:
            return await handle.result()
        return run_value(answer, handle._decode)

    def _prepared(
        self, workflow: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Handle[Any], Message, Mapping[str, Any]]:
        """The handle of a run to be started, the message that starts it, and the options given with its arguments."""
        requests, signals = self._opened()
        definition = _NAMED if isinstance(workflow, str) else workflow_of(workflow)
        options = _taken(kwargs, _START_OPTIONS, definition.signature.names, definition.name) if kwargs else kwargs
        if options:
            definition = definition.options(**{key: value for key, value in options.items() if key != "wait"})
        if isinstance(workflow, str):
            decode: Decode[Any] = convert.decode
            name, payload = workflow, _array(args, workflow)
        else:
            decode = definition.signature.decode_result
            name, payload = definition.name, definition.signature.bind(args, kwargs)
        run_id = self._new_id()
        workflow_id = definition.id or run_id
        body = StartWorkflow(
            workflow_id=workflow_id,
            run_id=run_id,
            name=name,
            args=payload,
            options=definition.run_options,
            conflict_policy=definition.conflict,
            build=definition.build,
            reply_topic=requests.reply_topic,
        )
        expected = requests.expect(run_id)
        handle: Handle[Any] = Handle(requests, signals, workflow_id, run_id=run_id, decode=decode, expected=expected)
        return handle, requests.message(workflow_id, body), options

    def _accepted(self, handle: Handle[Any], reply: StartReply) -> Handle[Any]:
        """The handle of the run in force: ours, or the one that was there."""
        answers.check_started(reply)
        if reply.run_id == handle.run_id:
            return handle
        requests, signals = self._opened()
        return Handle(requests, signals, handle.id, run_id=reply.run_id, decode=handle._decode)

    @overload
    def handle(self, id: str, /, *, run_id: str = "") -> Handle[Any]: ...
    @overload
    def handle(self, workflow: Workflow[P, R], id: str, /, *, run_id: str = "") -> Handle[R]: ...
    @overload
    def handle(self, workflow: type[HasRun[P, R]], id: str, /, *, run_id: str = "") -> Handle[R]: ...
    def handle(self, first: Any, second: str | None = None, /, *, run_id: str = "") -> Any:
        """A run by its workflow id, and with the workflow before it typed by its result: `client.handle(order, "o-1")`.

        Args:
            run_id: that very run; the current one unless given.
        """
        requests, signals = self._opened()
        if second is None:
            return Handle(requests, signals, check_workflow_id(first), run_id=run_id)
        decode = workflow_of(first).signature.decode_result
        return Handle(requests, signals, check_workflow_id(second), run_id=run_id, decode=decode)

    async def list(
        self, where: RunFilter | None = None, *, limit: int = LIST_MAX, cursor: str | None = None
    ) -> RunPage:
        """Runs, newest first, a page at a time: pass the page's cursor for the next."""
        return await self._backend.list_runs(where or RunFilter(), limit, cursor)

    async def counts(self) -> dict[str, dict[str, int]]:
        """Runs per workflow name and status."""
        return await self._backend.counts()

    # --- stand-alone tasks ----------------------------------------------------------------------------

    @overload
    async def run(self, task: str, /, *args: Any, id: str | None = None) -> Any: ...
    @overload
    async def run(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, task: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a task that belongs to no workflow, with its retries and time-outs, and return its result.

        `task` is a task, a method of a `service_stub`, or a name.

        Raises:
            TaskFailed, TaskTimedOut, TaskCanceled: it did not complete.
        """
        handle, message = self._dispatched(task, args, kwargs)
        requests, _ = self._opened()
        result: TaskResult = await requests.ask(topics.TASK_ENGINE, message, handle.id)
        return task_value(result, handle.name, handle._decode)

    @overload
    async def start_task(self, task: str, /, *args: Any, id: str | None = None) -> TaskHandle[Any]: ...
    @overload
    async def start_task(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]: ...
    @overload
    async def start_task(
        self, task: Callable[[*Ts], Deferred[R]], /, *args: *Ts, id: str | None = None
    ) -> TaskHandle[R]: ...
    async def start_task(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take *Ts
        """As `run`, but returns when the broker has the task."""
        handle, message = self._dispatched(task, args, kwargs)
        await self._opened()[0].backend.publish(topics.TASK_ENGINE, message)
        return handle

    def task(self, id: str) -> TaskHandle[Any]:
        """A task by its id."""
        return TaskHandle(self._opened()[0], id)

    def _dispatched(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[TaskHandle[Any], Message]:
        """The handle of a task to be run, and the message that dispatches it."""
        requests, _ = self._opened()
        options = _BARE_TASK.task_options
        decode: Decode[Any] = convert.decode
        if isinstance(task, str):
            given = _taken(kwargs, _TASK_OPTIONS, (), task)
            name, payload = task, _array(args, task)
        elif isinstance(task, Task):
            given = _taken(kwargs, _TASK_OPTIONS, task.signature.names, task.name) if kwargs else {}
            name, payload, options = task.name, task.signature.bind(args, kwargs), task.task_options
            decode = task.signature.decode_result
        else:
            raise TypeError(f"{task!r} is no task: pass what @task declares, a method of a service stub, or a name")
        task_id = given.get("id") or self._new_id()
        body = DispatchTask(
            task_id=task_id,
            name=name,
            args=payload,
            options=options,
            answer_to=[Address(requests.reply_topic, task_id)],
            dispatched=False,
        )
        handle: TaskHandle[Any] = TaskHandle(requests, task_id, name=name, decode=decode)
        return handle, requests.message(task_id, body)


async def _any_workflow() -> None:
    """Stands for workflows that are known by name only."""


def _any_task() -> None:
    """Stands for tasks that are known by name only."""


_NAMED = Workflow[..., Any](_any_workflow, "named")
_BARE_TASK = Task[..., Any](_any_task, name="named", mode=None)


def _array(args: Sequence[Any], name: str) -> Payload:
    return convert.encode(list(args), Any, f"the arguments of {name}")


def _taken(kwargs: dict[str, Any], options: frozenset[str], parameters: Sequence[str], name: str) -> dict[str, Any]:
    """Takes the options of ours out of `kwargs`.

    Raises:
        TypeError: the callee has a parameter called like one of them.
    """
    given = {key: kwargs.pop(key) for key in options & kwargs.keys()}
    if both := given.keys() & set(parameters):
        raise TypeError(
            f"{name} has parameters {sorted(both)}, which are options too: pass arguments by position, and options by "
            f"{name}.options(...)"
        )
    return given
