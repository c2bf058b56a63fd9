"""Bytes and messages that nobody can make sense of: they go to the dead letters, and everybody goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Client
from perdure_runtime.ports import Broker, Delivery, Undeliverable
from perdure_schemas import topics
from perdure_schemas.codec import encode
from perdure_schemas.messages import Message, WorkerHello
from tests.bad_input import hostile_app as app

TOPICS = [
    topics.WORKFLOW_ENGINE,
    topics.TASK_ENGINE,
    topics.TIMERS,
    topics.WORKFLOW_EVENTS,
    topics.task_run("double", None),
    topics.workflow_run("neighbour", None),
]
"""One of each kind: both engines, the timers, the projector, tasks and turns."""

HELLO = Message(
    id="m-1",
    namespace="default",
    key="k",
    at=0,
    body=WorkerHello(worker="w", build="b", workflows=[], tasks=[], slots=1),
    emitter="test",
)
"""A good message, where it belongs."""

BYTES = {
    "empty": b"",
    "text": b'{"type": "StartWorkflow"}',
    "cut": encode(HELLO)[:-3],
    "of a type that a later release may have": encode(HELLO).replace(b"WorkerHello", b"WorkerXello"),
    "of a version that a later release may have": b"\x7e" + encode(HELLO)[1:],
}


def with_neighbour(work: Callable[[Client, Any], Awaitable[None]], database: str = ":memory:") -> None:
    """Does it, on the engine's broker, while a neighbour runs, and again one after it."""

    async def both() -> None:
        async with asyncio.timeout(60), Client.embedded(app, db=database) as client:
            before = await client.start(app.neighbour, 1)
            await work(client, client._backend._backend._broker)  # type: ignore[attr-defined]
            assert await before.result() == 8
            assert await client.execute(app.neighbour, 2) == 16

    asyncio.run(both())


async def the_letter(broker: Any) -> Delivery | Undeliverable:
    """The one dead letter, once it is there."""
    while not (letters := await broker.dead_letters("default", 10)):  # noqa: ASYNC110 - who buries it tells nobody
        await asyncio.sleep(0.01)
    (letter,) = letters
    found: Delivery | Undeliverable = letter
    return found


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("topic", TOPICS)
def test_undecodable_bytes_are_put_aside(topic: str, kind: str) -> None:
    async def work(client: Client, broker: Broker) -> None:
        await broker.publisher().publish_raw(topic, "default", BYTES[kind], "as if it had come so")
        letter = await the_letter(broker)
        assert isinstance(letter, Undeliverable)
        assert (letter.topic, letter.data) == (topics.dead_letters(topic), BYTES[kind])
        assert letter.error, "people are told what is wrong with it"

    with_neighbour(work)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_message_where_its_type_is_not_known_is_put_aside(topic: str) -> None:
    async def work(client: Client, broker: Broker) -> None:
        await broker.publisher().publish([(topic, HELLO)])
        letter = await the_letter(broker)
        assert isinstance(letter, Delivery)
        assert (letter.topic, letter.message.id) == (topics.dead_letters(topic), "m-1")

    with_neighbour(work)


@pytest.mark.parametrize("topic", TOPICS)
def test_it_is_the_same_on_a_file(topic: str, tmp_path: Path) -> None:
    async def work(client: Client, broker: Broker) -> None:
        await broker.publisher().publish_raw(topic, "default", BYTES["text"], "as if it had come so")
        assert isinstance(await the_letter(broker), Undeliverable)

    with_neighbour(work, str(tmp_path / "perdure.sqlite"))


def test_a_client_tells_of_an_answer_that_it_cannot_read(caplog: pytest.LogCaptureFixture) -> None:
    async def work(client: Client, broker: Broker) -> None:
        await broker.publisher().publish_raw(topics.inbox(client.id), "default", BYTES["text"], "as if it had come so")

    with_neighbour(work)
    assert "answer_undecodable" in caplog.text
