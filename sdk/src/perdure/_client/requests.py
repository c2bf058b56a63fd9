"""Matching answers to what was asked.

An answer is one message to our inbox; it is lost if its engine dies before it is published. So whatever is asked is
asked again, under the same message id and so without a second effect, until the answer comes or nobody waits.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

from perdure._client.backend import Backend
from perdure._ids import IdSource
from perdure.errors import Unavailable
from perdure_schemas.messages import (
    AttemptOutcome,
    Body,
    CommandReply,
    Message,
    QueryResult,
    RunResult,
    StartReply,
    TaskOutcome,
    TaskResult,
    UpdateResult,
)

ASK_AGAIN_SECONDS_FIRST = 4.0
"""Longer than an engine takes over from a dead one, so that most questions are asked once."""
ASK_AGAIN_SECONDS_MAX = 30.0
SILENCE_SECONDS_MAX = 60.0
"""So long no engine has answered anything: what ends by itself, as a restart, is over. A queue, however long, moves."""

Answer: TypeAlias = StartReply | RunResult | CommandReply | QueryResult | UpdateResult | TaskResult
Key: TypeAlias = str
"""Of what is waited for: a message id, run id, workflow id, task id, query id or update id; all are unique."""


class Question:
    """One answer that somebody waits for."""

    __slots__ = (
        *("__weakref__", "_again", "_delay", "_make", "_requests", "_silence", "_stored_at", "_topic"),
        *("answer", "ends_in_silence", "keys", "until_end"),
    )

    def __init__(self, requests: Requests, keys: tuple[Key, ...], until_end: bool) -> None:
        self.keys = keys
        self.until_end = until_end
        """Whether the mere acceptance of a start is no answer."""
        self.answer: asyncio.Future[Any] = requests.loop.create_future()
        self.ends_in_silence = False
        """Whether to `end_in_silence`, once it is published: what was not, fails by itself."""
        self._requests = requests
        self._stored_at = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._make: Callable[[], Message] | None = None
        self._topic = ""
        self._delay = ASK_AGAIN_SECONDS_FIRST

    def publish(self, topic: str, message: Message) -> None:
        """Publish what asks it. Should that fail, its error is the answer."""
        published = self._requests.backend.publish(topic, message, until_end=self.until_end)
        published.add_done_callback(self._published)

    def _published(self, confirmed: asyncio.Future[None]) -> None:
        if confirmed.cancelled() or self.answer.done():
            return
        error = confirmed.exception()
        if error is not None:
            self.answer.set_exception(error)
        elif self.ends_in_silence:
            self.end_in_silence()

    def repeat(self, topic: str, make: Callable[[], Message]) -> None:
        """Publish what `make` gives again and again, from some seconds on, until the answer comes."""
        self._topic = topic
        self._make = make
        self._again = self._requests.loop.call_later(self._delay, self._ask_again)

    def _ask_again(self) -> None:
        assert self._make is not None
        if self.answer.done():
            return
        self._requests.backend.publish(self._topic, self._make())
        self._delay = min(self._delay * 2, ASK_AGAIN_SECONDS_MAX)
        self._again = self._requests.loop.call_later(self._delay, self._ask_again)

    def end_in_silence(self) -> None:
        """Let the answer be an error, should no engine answer anything to anybody here for long from now on: what asks
        it is stored."""
        self._stored_at = self._requests.loop.time()
        self._end_in_silence()

    def _end_in_silence(self) -> None:
        if self.answer.done():
            return
        loop = self._requests.loop
        ends_at = max(self._stored_at, self._requests.heard_at) + SILENCE_SECONDS_MAX
        if loop.time() < ends_at:
            self._silence = loop.call_at(ends_at, self._end_in_silence)
            return
        self.answer.set_exception(
            Unavailable(
                f"no engine has answered within {SILENCE_SECONDS_MAX:.0f} s. What was asked for is stored, and is done "
                "when one works again: the services' logs say what they wait for"
            )
        )

    def close(self) -> None:
        """Nobody waits any more."""
        for timer in (self._again, self._silence):
            if timer is not None:
                timer.cancel()
        self._requests.forget(self)


class Requests:
    """The table of open questions of one client, and the one place where its messages are made."""

    def __init__(self, backend: Backend, client_id: str, reply_topic: str) -> None:
        self.backend = backend
        self.reply_topic = reply_topic
        self.new_id = IdSource()
        self.loop = asyncio.get_running_loop()
        self.heard_at = 0.0
        """When the last answer came, by the loop's clock."""
        self._client_id = client_id
        self._open: dict[Key, list[Question]] = {}
        self._expected: weakref.WeakValueDictionary[Key, Question] = weakref.WeakValueDictionary()

    def message(self, key: str, body: Body) -> Message:
        """A new message of this client."""
        return Message(
            id=self.new_id(),
            namespace=self.backend.namespace,
            key=key,
            at=time.time_ns() // 1_000_000,
            body=body,
            emitter=self._client_id,
        )

    def question(self, *keys: Key, until_end: bool = False) -> Question:
        """Wait for an answer to any of these keys. Close it, whatever happens."""
        made = Question(self, keys, until_end)
        for key in keys:
            self._open.setdefault(key, []).append(made)
        return made

    def expect(self, run_id: str) -> Question:
        """Keep the end of a run, should it come, for as long as the caller keeps what this returns."""
        made = Question(self, (), until_end=True)
        self._expected[run_id] = made
        return made

    async def ask(self, topic: str, message: Message, *keys: Key) -> Any:
        """Publish, and wait for the answer to the message, or to any of `keys`.

        Raises:
            Unavailable, PayloadTooLarge: it could not be published.
        """
        question = self.question(message.id, *keys)
        return await self._answer(question, topic, message)

    async def ask_engine(self, topic: str, message: Message) -> Any:
        """As `ask`, of what an engine answers by itself, so that it is told when none does.

        Raises:
            Unavailable: also if none has answered anything for SILENCE_SECONDS_MAX.
        """
        question = self.question(message.id)
        question.ends_in_silence = True
        return await self._answer(question, topic, message)

    async def _answer(self, question: Question, topic: str, message: Message) -> Any:
        try:
            question.publish(topic, message)
            question.repeat(topic, lambda: message)
            return await self.backend.whole(await question.answer)
        finally:
            question.close()

    def forget(self, question: Question) -> None:
        """The question is answered, or nobody waits for it."""
        for key in question.keys:
            waiting = self._open.get(key)
            if waiting is None:
                continue
            if question in waiting:
                waiting.remove(question)
            if not waiting:
                del self._open[key]

    def waiting(self) -> list[Question]:
        """Those without an answer yet."""
        found = {id(question): question for questions in self._open.values() for question in questions}
        return [question for question in found.values() if not question.answer.done()]

    def deliver(self, message: Message) -> None:
        """An answer has come. One that nobody waits for is dropped."""
        answer = _answer(message.body)
        if answer is None:
            return
        self.heard_at = self.loop.time()
        for key in (message.causation_id, *_keys(answer)):
            if not key:
                continue
            for question in tuple(self._open.get(key, ())):
                _settle(question, answer)
            expected = self._expected.get(key)
            if expected is not None and not _accepted(answer):
                _settle(expected, answer)

    def close(self) -> None:
        """End every open question: the client is closed."""
        for waiting in list(self._open.values()):
            for question in tuple(waiting):
                question.answer.cancel("the client was closed")
                question.close()


def _settle(question: Question, answer: Answer) -> None:
    if question.answer.done():
        return
    if question.until_end and _accepted(answer) and answer.run_id in question.keys:
        return
    question.answer.set_result(answer)


def _accepted(answer: Answer) -> TypeGuard[StartReply]:
    """That a start is accepted is not the run's end, whatever ids its caller chose."""
    return isinstance(answer, StartReply) and answer.status == "ok"


def _answer(body: Body) -> Answer | None:
    match body:
        case StartReply() | RunResult() | CommandReply() | QueryResult() | UpdateResult() | TaskResult():
            return body
        case TaskOutcome():
            return TaskResult(task_id=body.command_id, outcome=body.outcome, result=body.result, failure=body.failure)
        case AttemptOutcome(outcome="completed", delegated=False):  # any other may be followed by a further attempt
            return TaskResult(task_id=body.task_id, outcome=body.outcome, result=body.result)
        case _:
            return None


def _keys(answer: Answer) -> tuple[str, ...]:
    match answer:
        case RunResult():
            return answer.run_id, any_run(answer.workflow_id)
        case QueryResult():
            return (answer.query_id,)
        case UpdateResult():
            return (answer.update_id,)
        case TaskResult():
            return (answer.task_id,)
        case StartReply() | CommandReply():
            return ()


def any_run(workflow_id: str) -> Key:
    """Stands for the current run of a workflow id."""
    return f"workflow/{workflow_id}"
