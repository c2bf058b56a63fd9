"""Clients start runs and tasks, wait for them, and steer them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar, TypeVarTuple, Unpack, overload

from perdure._client.backend import Backend
from perdure._client.requests import Question, Requests
from perdure._client.signals import Signals
from perdure._client.starts import Starts
from perdure._client.stuck import StuckWatch
from perdure._extras import needed
from perdure._given import check_kind, check_whole
from perdure._ids import IdSource
from perdure._names import check_text
from perdure._options import Started, StartedAndWaited
from perdure._payloads.backend import coded
from perdure._targets import scheme_of
from perdure.errors import PerdureError
from perdure.handle import Handle, TaskHandle, run_value, task_value
from perdure.task import Task
from perdure.workflow import HasRun, Workflow, workflow_of
from perdure_runtime.announced import Announced
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RunFilter as RunFilter
from perdure_runtime.ports import RunPage as RunPage
from perdure_schemas import topics
from perdure_schemas.messages import StartReply, TaskResult, WaitForResult

if TYPE_CHECKING:
    from perdure.payloads import Payloads
    from perdure.sync import SyncClient

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ts = TypeVarTuple("Ts")

LIST_MAX = 100
"""Runs on one page, unless told otherwise."""


class HasRunPositional(Protocol[*Ts, R_co]):
    """What a workflow class has, seen by its positional parameters."""

    @property
    def run(self) -> Callable[[*Ts], Coroutine[Any, Any, R_co]]: ...


class Issued(Protocol[R_co]):
    """What a call of a task or workflow makes: a Deferred, seen so that one of an int is also one of an object.

    A Deferred is a future, and futures are not covariant: where any object will do, as in `print(await ...)`, mypy
    would look for a workflow that returns just `object`.
    """

    @property
    def position(self) -> str: ...

    def __await__(self) -> Generator[Any, Any, R_co]: ...


class Client:
    """Open it by `async with`. One client may be used by any number of tasks of its event loop.

        async with Client.embedded(my_app) as client:
            print(await client.execute(order, "sku-1"))

    Options of a start may be given beside positional arguments, `client.start(order, "sku-1", id="o-1")`, or, as types
    need it when arguments go by keyword, before them: `client.start(order.options(id="o-1"), sku="sku-1")`; of a class
    that is `client.start(workflow_of(Order).options(id="o-1"), sku="sku-1")`.
    """

    def __init__(self, backend: Backend) -> None:
        """Use `Client.embedded` or `Client.connect`."""
        self._backend = backend
        self._new_id = IdSource()
        self.id = self._new_id()
        """Of this client: the sender of its signals, and the name of its inbox."""
        self._starts: Starts | None = None

    @classmethod
    def embedded(
        cls,
        *objects: object,
        db: str | Path = ":memory:",
        services: Sequence[object] = (),
        namespace: str = "default",
        slots: int | None = None,
        worker: bool = True,
        payloads: Payloads | None = None,
        survive_power_loss: bool = False,
    ) -> Self:
        """A client with engine and worker in this process.

        Args:
            objects: what the worker runs: modules, tasks, workflows.
            db: a SQLite file, whose open runs go on in whatever program opens it next, since all are started with
                PYTHONHASHSEED=0 in their environment: without, opening it for workflows is refused, unless
                PERDURE_GUARD is "warn" or "off". In memory unless given.
            services: implementations of services.
            slots: attempts of tasks at a time.
            worker: False runs the engine alone.
            payloads: how payloads are compressed and encrypted; those of PERDURE_PAYLOAD_KEYS_FILE unless given.
            survive_power_loss: what is confirmed is on the disk first, which costs a sync for each group of steps.
                Otherwise it survives the death of any process; a loss of power may take the last moments.
        """
        from perdure._client.embedded import EmbeddedBackend

        backend = EmbeddedBackend(
            objects, db=db, services=services, namespace=namespace, slots=slots, worker=worker, payloads=payloads,
            survive_power_loss=survive_power_loss,
        )  # fmt: skip
        return cls(coded(backend, payloads))

    @classmethod
    def connect(
        cls, target: str | Path, namespace: str = "default", *, token: str = "", payloads: Payloads | None = None
    ) -> Self:
        """A client of engines elsewhere: of an API by its URL, or of a `perdure dev` on this machine by its file.

        Args:
            target: `https://…`, or the path of a database or socket.
            token: what the API asks callers to show.
            payloads: as for `embedded`: the keys of the workers.

        Raises:
            ValueError: a URL of another scheme.
            NotInstalled: a URL needs the extra `api`.
        """
        if scheme_of(target) in {"http", "https"}:
            with needed("api", "a client of an API"):
                from perdure._http.backend import HttpBackend

            return cls(coded(HttpBackend(str(target), namespace, token), payloads))
        from perdure._client.connected import SocketBackend

        if scheme_of(target):
            raise ValueError(f"unknown scheme in {target!r}: a client connects to http://…, https://…, or a file")
        return cls(coded(SocketBackend(Path(target), namespace), payloads))

    async def __aenter__(self) -> Self:
        requests = Requests(self._backend, self.id, topics.inbox(self.id))
        await self._backend.open(self.id, requests.deliver)
        self._starts = Starts(requests, Signals(requests, self.id))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._starts is not None:
            self._starts.close()
            self._starts = None
        await self._backend.close()

    def _opened(self) -> Starts:
        if self._starts is None:
            raise PerdureError("the client is not open: use it inside `async with client:`")
        return self._starts

    @property
    def sync(self) -> SyncClient:
        """The blocking face, for programs without an event loop: `with Client.embedded(app).sync as client:`."""
        from perdure.sync import SyncClient

        return SyncClient(self)

    # --- runs ---------------------------------------------------------------------------------------

    @overload
    async def start(self, workflow: str, /, *args: Any, **options: Unpack[StartedAndWaited]) -> Handle[Any]: ...
    @overload
    async def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    @overload
    async def start(self, workflow: type[HasRun[P, R]], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    @overload
    async def start(
        self,
        workflow: Callable[[*Ts], Issued[R]],
        /,
        *args: *Ts,
        **options: Unpack[StartedAndWaited],
    ) -> Handle[R]: ...
    @overload
    async def start(
        self,
        workflow: Callable[[], HasRunPositional[*Ts, R]],
        /,
        *args: *Ts,
        **options: Unpack[StartedAndWaited],
    ) -> Handle[R]: ...
    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take *Ts
        """Start a run; returns when the engine has recorded it, or with wait="sent" when the broker has it.

        `workflow` is a workflow, a workflow class, or a name. For the options see `Workflow.options`.

        Raises:
            AlreadyStarted: a run with this id is in force, and `conflict` is "fail"; or it has ended, and `reuse`
                lets no other begin.
            SerializationError, PayloadTooLarge: an argument cannot travel.
            Unavailable: the broker did not take it; or it did, and no engine has answered anything for a minute: the
                run begins when one works again, and another start under its id begins none beside it.
        """
        starts = self._opened()
        requests = starts.requests
        handle, message, options = starts.run(workflow, args, kwargs)
        telling = starts.tell_unknown(message)
        if options.get("wait") == "sent":
            await requests.backend.publish(topics.WORKFLOW_ENGINE, message)
            return handle
        reply: StartReply = await requests.ask_engine(topics.WORKFLOW_ENGINE, message)
        if telling is not None:
            await asyncio.wait([telling])
        return await starts.accepted(handle, reply)

    @overload
    async def execute(self, workflow: str, /, *args: Any, **options: Unpack[Started]) -> Any: ...
    @overload
    async def execute(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(self, workflow: type[HasRun[P, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(
        self,
        workflow: Callable[[*Ts], Issued[R]],
        /,
        *args: *Ts,
        **options: Unpack[Started],
    ) -> R: ...
    @overload
    async def execute(
        self,
        workflow: Callable[[], HasRunPositional[*Ts, R]],
        /,
        *args: *Ts,
        **options: Unpack[Started],
    ) -> R: ...
    async def execute(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take *Ts
        """Start a run and return its result: `start` and `Handle.result` in one, and cheaper."""
        starts = self._opened()
        requests = starts.requests
        handle, message, _ = starts.run(workflow, args, kwargs)
        body = WaitForResult(workflow_id=handle.id, run_id=handle.run_id, reply_topic=requests.reply_topic)
        question = requests.question(message.id, handle.run_id, until_end=True)
        watch = StuckWatch(handle.describe)
        try:
            starts.tell_unknown(message)
            question.publish(topics.WORKFLOW_ENGINE, message)
            question.repeat(topics.WORKFLOW_ENGINE, lambda: requests.message(handle.id, body))
            answer = await question.answer
        finally:
            question.close()
            watch.close()
        if not isinstance(answer, StartReply) and answer.status == "not-found":
            answer = await requests.ask_engine(topics.WORKFLOW_ENGINE, message)  # that another run has the id was lost
        if isinstance(answer, StartReply):
            return await (await starts.accepted(handle, answer)).result()
        if answer.status == "continued-as-new":
            return await handle.result()
        return run_value(await requests.backend.whole(answer), handle._decode)

    @overload
    def handle(self, id: str, /, *, run_id: str = "") -> Handle[Any]: ...
    @overload
    def handle(self, workflow: Workflow[P, R], id: str, /, *, run_id: str = "") -> Handle[R]: ...
    @overload
    def handle(self, workflow: type[HasRun[P, R]], id: str, /, *, run_id: str = "") -> Handle[R]: ...
    def handle(self, first: Any, second: str | None = None, /, *, run_id: str = "") -> Any:
        """A run by its workflow id, and with the workflow before it typed by its result: `client.handle(order, "o-1")`.

        Args:
            run_id: that very run, which `Handle` tells more of; the current one unless given.
        """
        starts = self._opened()
        if second is None:
            return starts.handle(first, run_id)
        return starts.handle(second, run_id, workflow_of(first))

    async def list(
        self, where: RunFilter | None = None, *, limit: int = LIST_MAX, cursor: str | None = None
    ) -> RunPage:
        """Runs, newest first, a page at a time: pass the page's cursor for the next.

        Raises:
            TypeError: one of them is of another type.
            ValueError: `limit` is less than 1, or `cursor` is that of no page.
        """
        self._opened()
        check_kind(where, RunFilter, "where", "a RunFilter, such as RunFilter(status='failed')")
        check_kind(cursor, str, "cursor", "the str of a page's `cursor`, or None")
        check_whole(limit, "limit")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        return await self._backend.list_runs(where or RunFilter(), limit, cursor)

    async def counts(self) -> dict[str, dict[str, int]]:
        """Runs per workflow name and status."""
        self._opened()
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
        starts = self._opened()
        requests = starts.requests
        handle, message = starts.task(task, args, kwargs)
        starts.tell_unknown(message)
        result: TaskResult = await requests.ask(topics.TASK_ENGINE, message, handle.id)
        return task_value(result, handle.name, handle._decode)

    @overload
    async def start_task(self, task: str, /, *args: Any, id: str | None = None) -> TaskHandle[Any]: ...
    @overload
    async def start_task(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]: ...
    @overload
    async def start_task(
        self, task: Callable[[*Ts], Issued[R]], /, *args: *Ts, id: str | None = None
    ) -> TaskHandle[R]: ...
    async def start_task(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take *Ts
        """As `run`, but returns when the broker has the task."""
        starts = self._opened()
        requests = starts.requests
        handle, message = starts.task(task, args, kwargs)
        telling = starts.tell_unknown(message)
        await requests.backend.publish(topics.TASK_ENGINE, message)
        if telling is not None:
            await asyncio.wait([telling])
        return handle

    def task(self, id: str) -> TaskHandle[Any]:
        """A task by its id."""
        return TaskHandle(self._opened().requests, check_text(id, "id"))


def open_questions(client: Client) -> list[Question]:
    """Calls under way that have no answer yet: for test environments."""
    return [] if client._starts is None else client._starts.requests.waiting()


async def announced(client: Client) -> Announced | None:
    """What workers have; nothing if that cannot be known: for the command line."""
    try:
        return await client._backend.announced()
    except (PerdureError, StorageUnavailable):
        return None
