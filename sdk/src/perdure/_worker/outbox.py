"""Answers: published, confirmed, and only then the messages they answer are acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from perdure._payloads.edge import Later
from perdure.errors import PayloadTooLarge
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable
from perdure_runtime.ports import Consumer, Delivery, Publisher, Undeliverable
from perdure_schemas.codec import CodecError
from perdure_schemas.messages import Message

log = logging.getLogger("perdure.worker")

RETRY_SECONDS_FIRST = 0.05
RETRY_SECONDS_MAX = 5.0
"""An outage may last; what waits is small, unacknowledged at the broker, and safe."""

UNSENDABLE = (MessageTooLarge, PayloadTooLarge, CodecError, ValueError, TypeError, OverflowError, RecursionError)
"""What a broker raises for a message that it will never take, because of a user's value in it: that is the fault of one
run or attempt, and no other may suffer. Any other error is no message's fault, and ends the worker unacknowledged."""

Step = tuple[str, Message]
Seal = Callable[[Sequence[Message]], Later[list[Message]] | None]
"""Stores the large values of messages, and gives the messages with references to them; `None`: they have none."""


class Acks:
    """Acknowledges deliveries of one consumer; what comes while one is under way goes together in the next."""

    def __init__(
        self, consumer: Consumer, answered: Callable[[Sequence[Delivery | Undeliverable]], None] | None = None
    ) -> None:
        """`answered` is told what is to be acknowledged."""
        self.consumer = consumer
        self._answered = answered
        self._waiting: list[Delivery | Undeliverable] = []
        self._wake = asyncio.Event()
        self.busy = False

    def add(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        self._waiting += deliveries
        self._wake.set()
        if self._answered is not None:
            self._answered(deliveries)

    @property
    def idle(self) -> bool:
        return not self.busy and not self._waiting

    async def run(self) -> None:
        pause = RETRY_SECONDS_FIRST
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch, self._waiting = self._waiting, []
            self.busy = True
            try:
                await self.consumer.ack(batch)
                pause = RETRY_SECONDS_FIRST
            except StorageUnavailable:
                self._waiting = batch + self._waiting
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
            finally:
                self.busy = False


class Answer:
    """Messages to publish one after the other, each confirmed before the next, then deliveries to acknowledge."""

    __slots__ = ("acks", "deliveries", "instead", "next", "steps", "then")

    def __init__(
        self,
        steps: Sequence[Step],
        deliveries: Sequence[Delivery | Undeliverable] = (),
        acks: Acks | None = None,
        *,
        then: Callable[[], None] | None = None,
        instead: Callable[[Exception], Sequence[Step]] | None = None,
    ) -> None:
        """`then` is called when all is confirmed. `instead` makes the steps to take when one cannot be sent."""
        self.steps = steps
        self.deliveries = deliveries
        self.acks = acks
        self.then = then
        self.instead = instead
        self.next = 0


class Outbox:
    """Publishes answers in rounds: each round takes the next step of every answer that is there, in one batch."""

    def __init__(self, publisher: Publisher, seal: Seal = lambda _: None) -> None:
        self._publisher = publisher
        self._seal = seal
        self._open: list[Answer] = []
        self._sealing: dict[asyncio.Task[None], Answer] = {}
        self._broken: Exception | None = None
        self._wake = asyncio.Event()

    def add(self, answer: Answer) -> None:
        """Publish it soon: once its large values are stored, if it has any. Those that have none do not wait for it."""
        sealing = self._seal([message for _, message in answer.steps])
        if sealing is None:
            self._open.append(answer)
            self._wake.set()
            return
        self._sealing[asyncio.ensure_future(self._add_sealed(answer, sealing))] = answer

    async def _add_sealed(self, answer: Answer, sealing: Later[list[Message]]) -> None:
        try:
            sealed = await sealing()
            answer.steps = [(topic, message) for (topic, _), message in zip(answer.steps, sealed, strict=True)]
        except UNSENDABLE as error:
            self._replace(answer, error)
        except Exception as error:  # the answer stays in `_sealing`: it is never published
            self._broken = error
            self._wake.set()
            return
        task = asyncio.current_task()
        assert task is not None
        del self._sealing[task]
        self._open.append(answer)
        self._wake.set()

    @property
    def idle(self) -> bool:
        return not self._open and not self._sealing

    def close(self) -> None:
        """Store nothing more: what is not published is not acknowledged."""
        for task in self._sealing:
            task.cancel()

    async def run(self) -> None:
        while True:
            if not self._open and self._broken is None:
                self._wake.clear()
                await self._wake.wait()
            if self._broken is not None:
                raise self._broken
            current = list(self._open)
            steps = [answer.steps[answer.next] for answer in current if answer.next < len(answer.steps)]
            try:
                await self._publish(steps)
            except UNSENDABLE:
                await self._publish_singly(current)
            else:
                for answer in current:
                    answer.next += 1
            unfinished = [answer for answer in current if not self._finish(answer)]
            self._open = unfinished + self._open[len(current) :]  # what `then` of an answer added, too

    def _finish(self, answer: Answer) -> bool:
        if answer.next < len(answer.steps):
            return False
        if answer.acks is not None:
            answer.acks.add(answer.deliveries)
        if answer.then is not None:
            answer.then()
        return True

    async def _publish(self, steps: Sequence[Step]) -> None:
        """Publish until confirmed: the messages keep their ids, so a repetition changes nothing."""
        pause = RETRY_SECONDS_FIRST
        while steps:
            try:
                await self._publisher.publish(steps)
                return
            except StorageUnavailable as error:
                log.warning("publish_retried", extra={"action": "publish_retried", "error": str(error)})
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)

    async def _publish_singly(self, answers: Sequence[Answer]) -> None:
        """One cannot be sent, and nothing was published: find it, and send what is to be sent instead of it."""
        for answer in answers:
            if answer.next >= len(answer.steps):
                continue
            try:
                await self._publish([answer.steps[answer.next]])
            except UNSENDABLE as error:
                self._replace(answer, error)
            else:
                answer.next += 1

    def _replace(self, answer: Answer, error: Exception) -> None:
        log.error("message_unsendable", extra={"action": "message_unsendable", "error": str(error)})
        answer.steps = answer.instead(error) if answer.instead is not None else ()
        answer.instead = None
        answer.next = 0
