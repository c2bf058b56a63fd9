"""A run, or a stand-alone task, as a client holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from perdure_schemas import topics
from perdure_schemas.common import Address, Outcome, Payload, Query
from perdure_schemas.events import Edit, Recorded, RunEnded
from perdure_schemas.messages import (
    CancelTask,
    CompleteTask,
    ControlAction,
    ControlRun,
    MoveRun,
    QueryResult,
    QueryRun,
    ResumeRun,
    RetryTask,
    RunChanged,
    RunResult,
    StartReply,
    TaskResult,
    UpdateResult,
    UpdateRun,
    WaitForResult,
    WaitForTask,
)

from perdure import convert
from perdure._client import answers
from perdure._client.requests import Question, Requests, any_run
from perdure._client.signals import Signals
from perdure.errors import QueryFailed, ResultTimeout, RunNotFound
from perdure.failures import failure_from_exception
from perdure.workflow import handler_name, handler_signature

if TYPE_CHECKING:
    from perdure.flow import Channel

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

QUERY_SECONDS_MAX = 10.0
"""A query is answered from memory, or after a replay; no replay takes longer."""
VISIBLE_SECONDS_MAX = 2.0
"""The read model follows the engine by milliseconds; a run not seen by then does not exist."""
VISIBLE_POLL_SECONDS = 0.02
HISTORY_PAGE = 1_000

Decode = Callable[[Payload | None], Any]


class Handle(Generic[R]):
    """A run of a workflow. Without a run id it means the current run of the workflow id."""

    def __init__(self, requests: Requests, signals: Signals, id: str, *, run_id: str = "", decode: Decode) -> None:
        """Made by the client."""
        self.id = id
        """The workflow id."""
        self.run_id = run_id
        """Of this very run; empty: the current one."""
        self._requests = requests
        self._signals = signals
        self._decode = decode
        self._generation = 0
        self._expected: Question | None = None

    # --- its end ------------------------------------------------------------------------------------

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return what the workflow returned. Follows continue-as-new.

        Raises:
            RunFailed: it ended otherwise; subclasses tell how: RunCanceled, RunTerminated, RunTimedOut.
            RunNotFound: there is no such run, or it is past its retention.
            ResultTimeout: it is open still, after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                ended = await self._wait(self.run_id)
        except TimeoutError:
            raise ResultTimeout(f"run {self.id!r} is still open after {timeout} s; it goes on, ask again") from None
        return self._value(ended)

    def _value(self, ended: RunResult) -> R:
        if ended.status == "completed":
            value: R = self._decode(ended.result)
            return value
        raise answers.run_error(ended)

    async def _wait(self, run_id: str) -> RunResult:
        expected = self._expected
        if expected is not None and expected.answer.done() and not expected.answer.cancelled():
            return await self._follow(expected.answer.result())
        wait = WaitForResult(workflow_id=self.id, run_id=run_id, reply_topic=self._requests.reply_topic)
        question = self._requests.question(run_id or any_run(self.id))
        message = self._requests.message(self.id, wait)
        question.keys = (*question.keys, message.id)
        self._requests.register(message.id, question)
        try:
            if expected is None:
                question.publish(topics.WORKFLOW_ENGINE, message)
            question.repeat(topics.WORKFLOW_ENGINE, lambda: message)
            return await self._follow(await question.answer)
        finally:
            question.close()

    async def _follow(self, ended: RunResult) -> RunResult:
        """The end itself; of a run that continued as another, that one's."""
        if ended.status == "not-found":
            ended = await self._end_in_history(ended.run_id or self.run_id) or ended
        if ended.status != "not-found" and ended.generation < self._generation:
            self._expected = None
            return await self._wait(self.run_id)
        if ended.status == "continued-as-new" and ended.next_run_id:
            self._expected = None
            return await self._wait_for_next(ended.next_run_id)
        return ended

    async def _wait_for_next(self, run_id: str) -> RunResult:
        """Its start may not have been recorded yet."""
        loop = asyncio.get_running_loop()
        until = loop.time() + VISIBLE_SECONDS_MAX
        while True:
            ended = await self._wait(run_id)
            if ended.status != "not-found" or loop.time() > until:
                return ended
            await asyncio.sleep(VISIBLE_POLL_SECONDS)

    async def _end_in_history(self, run_id: str) -> RunResult | None:
        """Of a run that others have followed under its workflow id: the engine keeps only the last at hand."""
        if not run_id:
            return None
        generation = 0
        for recorded in await self._events(run_id):
            if isinstance(recorded.event, RunEnded):
                ended = recorded.event
                return RunResult(
                    workflow_id=self.id,
                    run_id=run_id,
                    status=ended.status,
                    generation=generation,
                    result=ended.result,
                    failure=ended.failure,
                    next_run_id=ended.next_run_id,
                )
        return None
