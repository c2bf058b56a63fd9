"""A run, or a stand-alone task, as a client holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from perdure import convert
from perdure._client import answers
from perdure._client.control import Steering
from perdure._client.ends import RunEnd
from perdure._client.requests import Question, Requests
from perdure._client.signals import Signals
from perdure._client.stuck import StuckWatch
from perdure.errors import QueryFailed, ResultTimeout
from perdure.failures import failure_from_exception
from perdure.workflow import handler_name, handler_signature
from perdure_schemas import topics
from perdure_schemas.common import Address, Outcome, Payload, Query
from perdure_schemas.messages import (
    CancelTask,
    CompleteTask,
    QueryResult,
    QueryRun,
    RetryTask,
    RunResult,
    TaskMessage,
    TaskResult,
    UpdateResult,
    UpdateRun,
    WaitForTask,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

QUERY_SECONDS_MAX = 10.0
"""A query is answered from memory, or after a replay; no replay takes longer."""

EncodeSignal: TypeAlias = Callable[[str, Any], Payload]
Decode: TypeAlias = Callable[[Payload | None], R]


class SignalChannel(Protocol[T_contra]):
    """What a client needs of a channel declared on a workflow class."""

    @property
    def name(self) -> str: ...

    def encode(self, value: T_contra) -> Payload: ...


class Handle(Steering, Generic[R]):
    """A run of a workflow. Without a run id it means the current run of the workflow id."""

    def __init__(
        self,
        requests: Requests,
        signals: Signals,
        id: str,
        *,
        run_id: str = "",
        decode: Decode[R] = convert.decode,
        expected: Question | None = None,
        encode_signal: EncodeSignal | None = None,
        existing: bool = False,
    ) -> None:
        """Made by the client."""
        self.id = id
        """The workflow id."""
        self.run_id = run_id
        """Of this very run; empty: the current one."""
        self.existing = existing
        """`start` found this run under its id, and began none."""
        self._requests = requests
        self._signals = signals
        self._decode = decode
        self._encode_signal = encode_signal or _encode_signal
        self._end = RunEnd(requests, id, expected)
        self._exists = bool(run_id)
        """The engine has said so: where the read model does not know it yet, it will."""

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return what the workflow returned; follows continue-as-new.

        Raises:
            RunFailed: it ended otherwise; subclasses tell how: RunCanceled, RunTerminated, RunTimedOut.
            RunNotFound: there is no such run, or it is past its retention.
            ResultTimeout: it is still open after `timeout` seconds.
        """
        watch = StuckWatch(self.describe)
        try:
            async with asyncio.timeout(timeout):
                ended = await self._end.wait(self.run_id)
        except TimeoutError:
            raise ResultTimeout(f"run {self.id!r} is still open after {timeout} s; it goes on, ask again") from None
        finally:
            watch.close()
        self._exists = True
        return run_value(ended, self._decode)

    # --- talking to its code ------------------------------------------------------------------------

    @overload
    async def signal(self, channel: SignalChannel[T], value: T, /) -> None: ...
    @overload
    async def signal(self, channel: str, value: Any = None, /) -> None: ...
    async def signal(self, channel: Any, value: Any = None, /) -> None:
        """Send a value to a channel; returns when it is recorded. Signals of one client arrive in its order.

        Raises:
            RunNotFound: the run has ended. A run that has not started yet will find the signal.
            SerializationError: the value is not of the channel's type.
            UnknownName: the workflow's class declares channels, but none of that name.
        """
        if isinstance(channel, str):
            name, payload = channel, self._encode_signal(channel, value)
        else:
            name, payload = channel.name, channel.encode(value)
        reply = await self._signals.send(self.id, name, payload, self.run_id)
        answers.check_reply(reply, "signal to", self.id)

    @overload
    async def query(self, query: str, /, *args: Any) -> Any: ...
    @overload
    async def query(self, query: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Ask the run's code, by `Order.status` or by name. Works on ended runs too.

        Raises:
            QueryFailed: it raised, or nobody answered within 10 seconds.
            RunNotFound: there is no such run.
        """
        name, payload, decode = _call(query, args, kwargs)
        query_id = self._requests.new_id()
        reply_to = Address(self._requests.reply_topic, "")
        asked = Query(query_id=query_id, name=name, args=payload, reply_to=reply_to)
        message = self._requests.message(self.id, QueryRun(workflow_id=self.id, query=asked, run_id=self.run_id))
        try:
            async with asyncio.timeout(QUERY_SECONDS_MAX):
                result: QueryResult = await self._requests.ask(topics.WORKFLOW_ENGINE, message, query_id)
        except TimeoutError:
            raise QueryFailed(
                f"query {name!r} of {self.id!r} was not answered within {QUERY_SECONDS_MAX:.0f} s: is a worker running?"
            ) from None
        if result.status != "ok" or result.failure is not None:
            raise answers.query_error(result, name, self.id)
        return decode(result.result)

    @overload
    async def update(self, update: str, /, *args: Any) -> Any: ...
    @overload
    async def update(
        self, update: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def update(self, update: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Have the run's code do something, by `Order.add` or by name, and return its answer.

        Raises:
            UpdateFailed: it raised.
            Refused: the run has ended.
            RunNotFound: there is no such run.
        """
        name, payload, decode = _call(update, args, kwargs)
        update_id = self._requests.new_id()
        body = UpdateRun(
            workflow_id=self.id,
            update_id=update_id,
            name=name,
            args=payload,
            reply_topic=self._requests.reply_topic,
            run_id=self.run_id,
        )
        message = self._requests.message(self.id, body)
        result: UpdateResult = await self._requests.ask(topics.WORKFLOW_ENGINE, message, update_id)
        if result.status != "ok" or result.failure is not None:
            raise answers.update_error(result, name, self.id)
        return decode(result.result)

    def __repr__(self) -> str:
        return f"<run {self.id!r} {self.run_id}>"


def _encode_signal(channel: str, value: Any) -> Payload:
    """To a workflow that is not known here."""
    return convert.encode(value, Any, f"the signal to {channel}")


def run_value(ended: RunResult, decode: Decode[R]) -> R:
    """What the workflow returned.

    Raises:
        RunFailed, RunNotFound: as `Handle.result`.
    """
    if ended.status == "completed":
        return decode(ended.result)
    raise answers.run_error(ended)


def _call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Payload, Decode[Any]]:
    """Name, arguments, and how to read the result of a query or update."""
    if isinstance(target, str):
        return target, convert.encode_arguments(args, target), convert.decode
    signature = handler_signature(target)
    return handler_name(target), signature.bind(args, kwargs), signature.decode_result


class TaskHandle(Generic[R]):
    """A stand-alone task, or by its id one of a workflow."""

    def __init__(self, requests: Requests, id: str, *, name: str = "", decode: Decode[R] = convert.decode) -> None:
        """Made by the client."""
        self.id = id
        """The task's id."""
        self.name = name
        """Of the task, where the client knows it."""
        self._requests = requests
        self._decode = decode

    async def result(self, timeout: float | None = None) -> R:
        """Wait for its outcome.

        Raises:
            TaskFailed, TaskTimedOut, TaskCanceled: it did not complete.
            RunNotFound: there is no such stand-alone task.
            ResultTimeout: it has no outcome after `timeout` seconds.
        """
        body = WaitForTask(task_id=self.id, reply_topic=self._requests.reply_topic)
        try:
            async with asyncio.timeout(timeout):
                message = self._requests.message(self.id, body)
                result: TaskResult = await self._requests.ask(topics.TASK_ENGINE, message, self.id)
        except TimeoutError:
            raise ResultTimeout(f"task {self.id!r} has no outcome after {timeout} s; it goes on, ask again") from None
        return task_value(result, self.name, self._decode)

    async def cancel(self, reason: str = "", *, actor: str = "") -> None:
        """Ask the running attempt to stop, and try no other.

        Raises, as do the others:
            RunNotFound: the task engine knows no such task.
            Refused: the task has ended.
        """
        topic = self._requests.reply_topic
        await self._command(CancelTask(task_id=self.id, reason=reason, actor=actor, reply_topic=topic), "cancel")

    async def retry(self, *args: Any, reason: str = "", actor: str = "") -> None:
        """A new attempt now; with other arguments, if any are given."""
        payload = convert.encode(list(args), Any, "the arguments") if args else None
        topic = self._requests.reply_topic
        body = RetryTask(task_id=self.id, reason=reason, actor=actor, args=payload, reply_topic=topic)
        await self._command(body, "retry")

    async def complete(self, value: R, *, reason: str = "", actor: str = "") -> None:
        """Give the result of a delegated task, or instead of a task that should not run any more."""
        result = convert.encode(value, Any, "the result")
        await self._settle("completed", result, None, reason=reason, actor=actor)

    async def fail(self, error: BaseException, *, reason: str = "", actor: str = "") -> None:
        """Fail a delegated task."""
        await self._settle("failed", None, error, reason=reason, actor=actor)

    async def _settle(
        self, outcome: Outcome, result: Payload | None, error: BaseException | None, *, reason: str, actor: str
    ) -> None:
        body = CompleteTask(
            task_id=self.id,
            outcome=outcome,
            result=result,
            failure=None if error is None else failure_from_exception(error),
            reason=reason,
            actor=actor,
            reply_topic=self._requests.reply_topic,
        )
        await self._command(body, "complete")

    async def _command(self, body: TaskMessage, what: str) -> None:
        reply = await self._requests.ask_engine(topics.TASK_ENGINE, self._requests.message(self.id, body))
        answers.check_reply(reply, f"{what} task", self.id)

    def __repr__(self) -> str:
        return f"<task {self.name} {self.id!r}>"


def task_value(result: TaskResult, name: str, decode: Decode[R]) -> R:
    """What the task returned.

    Raises:
        TaskFailed, RunNotFound: as `TaskHandle.result`.
    """
    if result.outcome in {"completed", "skipped"}:
        return decode(result.result)
    raise answers.task_error(result, name)
