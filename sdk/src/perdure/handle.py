"""A run, or a stand-alone task, as a client holds it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from perdure import convert
from perdure._client import answers
from perdure._client.control import Steering
from perdure._client.ends import RunEnd
from perdure._client.looking import GLANCE_SECONDS_MAX
from perdure._client.requests import Question, Requests
from perdure._client.signals import Signals, tell_kept
from perdure._client.stuck import StuckWatch, overdue
from perdure._given import check_seconds
from perdure._names import check_text
from perdure.errors import QueryFailed, ResultTimeout, RunNotFound, UpdateTimeout
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
UPDATE_SECONDS = 60.0
"""Unless told otherwise: most updates are answered at once, and who waits for one of a run that does not go on should
learn of it."""

EncodeSignal: TypeAlias = Callable[[str, Any], Payload]
Decode: TypeAlias = Callable[[Payload | None], R]


class SignalChannel(Protocol[T_contra]):
    """What a client needs of a channel declared on a workflow class."""

    @property
    def name(self) -> str: ...

    def encode(self, value: T_contra) -> Payload: ...


class Handle(Steering, Generic[R]):
    """A run of a workflow.

    One that `start` gave means that run and those that continue it (`continue_as_new`): all methods are about the last
    of them, and none about a run that is started later under the same workflow id. `client.handle(id)` means whichever
    run of the workflow id is the current one, and `client.handle(id, run_id=...)` that very run: only its `result`
    follows continue-as-new, and once others have continued it, whatever else is asked of its code, or is to change it,
    is `Refused`.
    """

    def __init__(
        self,
        requests: Requests,
        signals: Signals,
        id: str,
        *,
        run_id: str = "",
        first_run_id: str = "",
        decode: Decode[R] = convert.decode,
        expected: Question | None = None,
        encode_signal: EncodeSignal | None = None,
        existing: bool = False,
    ) -> None:
        """Made by the client."""
        self.id = id
        """The workflow id."""
        self.run_id = run_id
        """Of the run that was started, or asked for; empty: of the current one."""
        self.existing = existing
        """`start` found this run under its id, and began none."""
        self._requests = requests
        self._signals = signals
        self._decode = decode
        self._encode_signal = encode_signal or _encode_signal
        self._first_run_id = first_run_id
        self._end = RunEnd(requests, id, expected)
        self._end.first_run_id = first_run_id
        self._exists = bool(run_id)
        """The engine has said so: where the read model does not know it yet, it will."""
        self._update_seconds: float | None = UPDATE_SECONDS
        self._update_id = ""

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return what the workflow returned; follows continue-as-new.

        Raises:
            RunFailed: it ended otherwise; subclasses tell how: RunCanceled, RunTerminated, RunTimedOut.
            RunNotFound: there is no such run, or it is past its retention.
            ResultTimeout: it is still open after `timeout` seconds; with 0 it is only looked whether it has ended.
        """
        check_seconds(timeout, "timeout")
        watch = StuckWatch(self.describe)
        try:
            async with asyncio.timeout(timeout):
                ended = await self._end.wait(self.run_id)
        except TimeoutError:
            ended = await self._ended(timeout)
        finally:
            watch.close()
        self._exists = True
        try:
            return run_value(ended, self._decode)
        except RunNotFound as error:
            raise await self._told(error) from None

    async def _ended(self, seconds: float | None) -> RunResult:
        """Of a run whose end did not come in time: it may be there all the same, where that was less than an answer
        takes, or the answer was lost.

        Raises:
            ResultTimeout: the run is open.
        """
        standing = await self._standing()
        if standing is not None and standing.ended_at is not None:
            try:
                async with asyncio.timeout(GLANCE_SECONDS_MAX):
                    return await self._end.wait(self.run_id)
            except TimeoutError:  # it was resumed just now, or one that continues it is open
                standing = await self._standing()
        raise overdue(self.id, seconds, standing)

    # --- talking to its code ------------------------------------------------------------------------

    @overload
    async def signal(self, channel: SignalChannel[None], /) -> None: ...
    @overload
    async def signal(self, channel: SignalChannel[T], value: T, /) -> None: ...
    @overload
    async def signal(self, channel: str, value: Any = None, /) -> None: ...
    async def signal(self, channel: Any, value: Any = None, /) -> None:
        """Send a value to a channel; returns when it is recorded. Signals of one client arrive in its order.

        A run that is started within the next hour will find the signal. That there is none yet is warned of, in the
        log of `perdure.client`.

        Raises:
            Refused: the run has ended.
            RunNotFound: it has ended, and is past its retention.
            SerializationError: the value is not of the channel's type.
            UnknownName: the workflow's class declares channels, but none of that name.
        """
        if isinstance(channel, str):
            name, payload = channel, self._encode_signal(channel, value)
        else:
            name, payload = channel.name, channel.encode(value)
        reply = await self._signals.send(self.id, name, payload, await self._addressed())
        await self._check(reply, "signal to")
        tell_kept(reply, self.id, name)

    @overload
    async def query(self, query: str, /, *args: Any) -> Any: ...
    @overload
    async def query(self, query: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Ask the run's code, by `Order.status` or by name. Works on ended runs too.

        Raises:
            QueryFailed: it raised, or nobody answered within 10 seconds.
            Refused: the very run that the handle means has continued as a new one.
            RunNotFound: there is no such run.
        """
        name, payload, decode = _call(query, args, kwargs)
        query_id = self._requests.new_id()
        reply_to = Address(self._requests.reply_topic, "")
        asked = Query(query_id=query_id, name=name, args=payload, reply_to=reply_to)
        body = QueryRun(workflow_id=self.id, query=asked, run_id=await self._addressed())
        message = self._requests.message(self.id, body)
        try:
            async with asyncio.timeout(QUERY_SECONDS_MAX):
                result: QueryResult = await self._requests.ask(topics.WORKFLOW_ENGINE, message, query_id)
        except TimeoutError:
            what, why = f"query {name!r} of {self.id!r}", await self._silence()
            raise QueryFailed(f"{what} was not answered within {QUERY_SECONDS_MAX:.0f} s: {why}") from None
        if result.status != "ok" or result.failure is not None:
            raise await self._told(answers.query_error(result, name, self.id))
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
            UpdateTimeout: it was not answered within 60 seconds, or those of `options`. It may be done yet.
            Refused: the run has ended.
            RunNotFound: there is no such run.
        """
        name, payload, decode = _call(update, args, kwargs)
        update_id = self._update_id or self._requests.new_id()
        body = UpdateRun(
            workflow_id=self.id,
            update_id=update_id,
            name=name,
            args=payload,
            reply_topic=self._requests.reply_topic,
            run_id=await self._addressed(),
        )
        message = self._requests.message(self.id, body)
        limit = asyncio.timeout(self._update_seconds)
        try:
            async with limit:
                result: UpdateResult = await self._requests.ask(topics.WORKFLOW_ENGINE, message, update_id)
        except TimeoutError:
            if not limit.expired():
                raise
            raise await self._unanswered(name, update_id) from None
        if result.status != "ok" or result.failure is not None:
            raise await self._told(answers.update_error(result, name, self.id))
        return decode(result.result)

    def options(self, *, update_timeout: float | None = UPDATE_SECONDS, update_id: str = "") -> Handle[R]:
        """This handle, with other options for its updates.

        Args:
            update_timeout: seconds until an update that is not answered raises UpdateTimeout; None: it is waited for.
            update_id: asks again for the update that had this id, with the same arguments: it is done once in a run,
                and its answer is given again as long as it is one of the last 1,000 of the run; a run that has
                continued as a new one since may do it anew. Or the id that a new update is to have.
        """
        check_seconds(update_timeout, "update_timeout")
        changed = copy.copy(self)
        changed._update_seconds, changed._update_id = update_timeout, check_text(update_id, "update_id")
        return changed

    async def _unanswered(self, name: str, update_id: str) -> UpdateTimeout:
        """Of an update whose answer did not come in time."""
        assert self._update_seconds is not None, "without a time there is no end of it"
        standing = await self._standing()
        held = standing is not None and standing.status in {"stuck", "paused"}
        why = f"the run is {standing.status}" if standing is not None and held else ""
        return answers.update_overdue(name, self.id, update_id, within=f"within {self._update_seconds:g} s", why=why)

    def __repr__(self) -> str:
        return f"<run {self.id!r} {self.run_id}>"


def _encode_signal(channel: str, value: Any) -> Payload:
    """To a workflow that is not known here."""
    return convert.encode(value, what=f"the signal to {channel}")


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
        check_seconds(timeout, "timeout")
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
        payload = convert.encode(list(args), what="the arguments") if args else None
        topic = self._requests.reply_topic
        body = RetryTask(task_id=self.id, reason=reason, actor=actor, args=payload, reply_topic=topic)
        await self._command(body, "retry")

    async def complete(self, value: R, *, reason: str = "", actor: str = "") -> None:
        """Give the result of a delegated task, or instead of a task that should not run any more."""
        result = convert.encode(value, what="the result")
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
