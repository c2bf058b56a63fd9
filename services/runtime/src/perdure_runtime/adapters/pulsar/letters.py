"""Dead letters as they wait, without taking one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime

from perdure_runtime.adapters.pulsar.admin import PulsarAdmin
from perdure_runtime.adapters.pulsar.names import LETTERS_SUBSCRIPTION, is_letters
from perdure_runtime.adapters.pulsar.publisher import REASON
from perdure_runtime.ports import Delivery, Undeliverable
from perdure_schemas.codec import CodecError, decode

_PUBLISHED = "X-Pulsar-publish-time"
_PROPERTIES = "X-Pulsar-PROPERTY"
_Letter = tuple[datetime, Delivery | Undeliverable]
"""When it was published, and the letter."""


async def newest(admin: PulsarAdmin, namespace: str, limit: int) -> Sequence[Delivery | Undeliverable]:
    """Of all topics, newest first, at most `limit`.

    Raises:
        StorageUnavailable: Pulsar's REST API cannot be reached.
    """
    names = [topic for topic in await admin.topics(namespace) if is_letters(topic)]
    found = await asyncio.gather(*(_of_topic(admin, namespace, topic, limit) for topic in names))
    letters = sorted((letter for of_topic in found for letter in of_topic), key=lambda letter: letter[0], reverse=True)
    return [letter for _, letter in letters[:limit]]


async def _of_topic(admin: PulsarAdmin, namespace: str, topic: str, limit: int) -> list[_Letter]:
    waiting = await admin.backlog(namespace, topic, LETTERS_SUBSCRIPTION)
    found = []
    for number in range(waiting, max(0, waiting - limit), -1):
        headers, data = await admin.peek(namespace, topic, LETTERS_SUBSCRIPTION, number)
        published = headers.get(_PUBLISHED)
        if published is not None:  # else it was taken meanwhile
            reason = json.loads(headers.get(_PROPERTIES, "{}")).get(REASON)
            found.append((published_at(published), _letter(topic, data, reason)))
    return found


def published_at(text: str) -> datetime:
    """As Pulsar writes it: of the fraction it leaves zeros at the end out, so that the text itself does not sort."""
    return datetime.fromisoformat(text)


def _letter(topic: str, data: bytes, reason: str | None) -> Delivery | Undeliverable:
    if reason is None:
        try:
            return Delivery(topic=topic, message=decode(data), redeliveries=0)
        except CodecError as error:
            reason = str(error)
    return Undeliverable(topic=topic, data=data, error=reason, redeliveries=0)
