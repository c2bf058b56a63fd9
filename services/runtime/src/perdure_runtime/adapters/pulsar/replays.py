"""Dead letters go back to where they came from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from hashlib import sha256

from perdure_runtime.adapters.pulsar import PulsarBroker
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin
from perdure_runtime.adapters.pulsar.names import LETTERS_SUBSCRIPTION, is_letters
from perdure_runtime.ports import Consumer, Delivery, Publisher, Undeliverable
from perdure_schemas import topics
from perdure_schemas.codec import CodecError, decode
from perdure_schemas.messages import Message

_QUIET_SECONDS = 10.0
"""A broker that has letters brings them sooner; what does not come is another consumer's."""


def letter_id(letter: Delivery | Undeliverable) -> str:
    """The message's id; of one that cannot be read, a hash of its bytes."""
    if isinstance(letter, Delivery):
        return letter.message.id
    return f"raw-{sha256(letter.data).hexdigest()[:16]}"


def home(letter: Delivery | Undeliverable) -> str:
    """The topic that it came from."""
    return letter.topic.removeprefix(topics.dead_letters(""))


async def replay(
    broker: PulsarBroker, admin: PulsarAdmin, namespace: str, wanted: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """Publish letters to their topics again; ids of those that went, and of those that no release so far can read.

    One that dies half-way publishes a letter twice at most, which engines recognize.

    Args:
        wanted: ids of letters; None: all of them.

    Raises:
        StorageUnavailable: Pulsar cannot be reached.
    """
    gone: list[str] = []
    unreadable: list[str] = []
    for topic in await admin.topics(namespace):
        waiting = await admin.backlog(namespace, topic, LETTERS_SUBSCRIPTION) if is_letters(topic) else 0
        if not waiting:
            continue
        consumer = await broker.subscribe(namespace, [topic], LETTERS_SUBSCRIPTION, "shared")
        try:
            async for letter in _letters(consumer, waiting):
                if wanted is not None and letter_id(letter) not in wanted:
                    continue
                went = await _send_home(broker.publisher(), letter)
                (gone if went else unreadable).append(letter_id(letter))
                if went:
                    await consumer.ack([letter])
        finally:
            await consumer.close()  # what was not acknowledged waits again
    return gone, unreadable


async def _send_home(publisher: Publisher, letter: Delivery | Undeliverable) -> bool:
    message = _message(letter)
    if message is not None:
        await publisher.publish([(home(letter), message)])
    return message is not None


def _message(letter: Delivery | Undeliverable) -> Message | None:
    """One that an older release could not read may be readable now."""
    if isinstance(letter, Delivery):
        return letter.message
    try:
        return decode(letter.data)
    except CodecError:
        return None


async def _letters(consumer: Consumer, count: int) -> AsyncIterator[Delivery | Undeliverable]:
    while count > 0:
        try:
            found = await asyncio.wait_for(consumer.receive(), _QUIET_SECONDS)
        except TimeoutError:
            return
        count -= len(found)
        for letter in found:
            yield letter
