"""Answers: in order, confirmed, then acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from perdure._worker.outbox import Acks, Answer, Outbox
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable, UnknownOutcome
from perdure_runtime.ports import Consumer, Delivery, Publisher
from perdure_schemas.codec import CodecError
from perdure_schemas.messages import Message, WorkerHello
from tests.sdk.worker.engine import PATIENCE_S

pytestmark = pytest.mark.asyncio


def message(id: str) -> Message:
    body = WorkerHello(worker=id, build="", workflows=[], tasks=[], slots=1)
    return Message(id=id, namespace="default", key=id, at=0, body=body)


class Broker:
    """A publisher and a consumer that keep a log, and do as `outcomes` says."""

    def __init__(self, *outcomes: Exception, refused: Exception | None = None) -> None:
        self.refused = refused
        self.log: list[str] = []
        self.outcomes = list(outcomes)
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        await self.gate.wait()
        names = "+".join(message.id for _, message in batch)
        if any(message.id == "huge" for _, message in batch):
            raise MessageTooLarge("over 1 MB")
        if self.refused is not None and any(message.id == "refused" for _, message in batch):
            raise self.refused
        if self.outcomes:
            self.log.append(f"lost {names}")
            raise self.outcomes.pop()
        self.log.append(names)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self.outcomes:
            raise self.outcomes.pop()
        self.log.append(f"ack {'+'.join(d.message.id for d in deliveries)}")


@asynccontextmanager
async def running(broker: Broker) -> AsyncIterator[tuple[Outbox, Acks]]:
    outbox, acks = Outbox(cast(Publisher, broker)), Acks(cast(Consumer, broker))
    tasks = [asyncio.create_task(outbox.run()), asyncio.create_task(acks.run())]
    yield outbox, acks
    async with asyncio.timeout(PATIENCE_S):
        while not (outbox.idle and acks.idle):  # noqa: ASYNC110  # neither tells
            await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def delivery(id: str) -> Delivery:
    return Delivery(topic="t", message=message(id), redeliveries=0)


async def test_the_second_step_waits_for_the_first_and_rides_with_the_next_answer() -> None:
    broker = Broker()
    broker.gate.clear()
    async with running(broker) as (outbox, acks):
        outbox.add(Answer([("a", message("1a")), ("b", message("1b"))], [delivery("1")], acks))
        await asyncio.sleep(0)
        outbox.add(Answer([("a", message("2a"))], [delivery("2")], acks))
        broker.gate.set()
    assert broker.log[:2] == ["1a", "1b+2a"]
    assert broker.log[2:] == ["ack 1+2"]


async def test_nothing_is_acknowledged_before_all_is_confirmed() -> None:
    broker = Broker(StorageUnavailable("down"), StorageUnavailable("down"))
    async with running(broker) as (outbox, acks):
        outbox.add(Answer([("a", message("1a")), ("b", message("1b"))], [delivery("1")], acks))
    assert broker.log == ["lost 1a", "lost 1a", "1a", "1b", "ack 1"]


async def test_a_lost_acknowledgement_is_repeated() -> None:
    broker = Broker(StorageUnavailable("down"))
    async with running(broker) as (_, acks):
        acks.add([delivery("1")])
        acks.add([delivery("2")])
    assert broker.log == ["ack 1+2"]


async def test_one_message_too_large_is_answered_otherwise_and_others_are_not_held_up() -> None:
    broker = Broker()

    def instead(error: Exception) -> list[Any]:
        return [("a", message("sorry"))] if "1 MB" in str(error) else []

    async with running(broker) as (outbox, acks):
        outbox.add(Answer([("a", message("1a"))], [delivery("1")], acks))
        outbox.add(Answer([("a", message("huge")), ("b", message("2b"))], [delivery("2")], acks, instead=instead))
    assert broker.log[0] == "1a"
    assert [entry for entry in broker.log if not entry.startswith("ack")] == ["1a", "sorry"]
    assert sorted("+".join(e[4:] for e in broker.log if e.startswith("ack")).split("+")) == ["1", "2"]


@pytest.mark.parametrize("error", [CodecError("a lone surrogate"), UnicodeError("it"), TypeError("7 is no str")])
async def test_one_that_cannot_be_encoded_is_answered_otherwise_and_others_are_not_held_up(error: Exception) -> None:
    broker = Broker(refused=error)
    told: list[Exception] = []

    def instead(error: Exception) -> list[Any]:
        told.append(error)
        return [("a", message("sorry"))]

    async with running(broker) as (outbox, acks):
        outbox.add(Answer([("a", message("1a"))], [delivery("1")], acks))
        outbox.add(Answer([("a", message("refused"))], [delivery("2")], acks, instead=instead))
        outbox.add(Answer([("a", message("refused"))], [delivery("3")], acks))
    assert told == [error]
    assert [entry for entry in broker.log if not entry.startswith("ack")] == ["1a", "sorry"]
    assert sorted("+".join(e[4:] for e in broker.log if e.startswith("ack")).split("+")) == ["1", "2", "3"]


async def test_an_error_of_the_broker_itself_is_no_answers_fault_and_acknowledges_nothing() -> None:
    broker = Broker(UnknownOutcome("not a word about any message"))
    outbox, acks = Outbox(cast(Publisher, broker)), Acks(cast(Consumer, broker))
    outbox.add(Answer([("a", message("1a"))], [delivery("1")], acks))
    with pytest.raises(UnknownOutcome):
        await outbox.run()
    assert acks.idle


async def test_an_answer_whose_values_cannot_be_stored_ends_the_worker_and_is_not_sent_without() -> None:
    broker, begun = Broker(), asyncio.Event()

    async def fails() -> list[Message]:
        await begun.wait()
        raise UnknownOutcome("not a word about any value")

    outbox, acks = Outbox(cast(Publisher, broker), lambda _: fails), Acks(cast(Consumer, broker))
    outbox.add(Answer([("a", message("1a"))], [delivery("1")], acks))
    running = asyncio.create_task(outbox.run())
    await asyncio.sleep(0.01)
    begun.set()
    with pytest.raises(UnknownOutcome):
        await running
    assert broker.log == []
    assert acks.idle
    assert not outbox.idle


async def test_an_answer_that_another_one_leads_to_is_sent() -> None:
    broker = Broker()
    async with running(broker) as (outbox, acks):
        following = Answer([("a", message("2"))], [delivery("2")], acks)
        outbox.add(Answer([("a", message("1"))], then=lambda: outbox.add(following)))
    assert broker.log == ["1", "2", "ack 2"]
