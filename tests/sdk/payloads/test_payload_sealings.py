"""A message with large values that is published again: what is stored for it once is not stored again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from perdure._payloads import sealings
from perdure._payloads.edge import Edge
from perdure._payloads.sealings import Sealings
from perdure.convert import OFFLOAD_ABOVE_BYTES, encode
from perdure.errors import Unavailable
from perdure_schemas.blobs import Blob
from perdure_schemas.messages import Message, SendSignal

LARGE = "x" * (2 * OFFLOAD_ABOVE_BYTES)


@dataclass
class Store:
    put_ids: list[str] = field(default_factory=list)
    away: bool = False

    async def put(self, blob: Blob, data: bytes) -> None:
        if self.away:
            raise Unavailable("away")
        self.put_ids.append(blob.id)

    async def get(self, blob: Blob) -> bytes | None:
        return None


def signal(text: str, *, to: str = "w", at: int = 1) -> Message:
    body = SendSignal(workflow_id=to, channel="c", sender="", number=0, payload=encode(text), reply_topic="inbox.me")
    return Message(id="m", namespace="default", key=to, at=at, body=body)


def with_store(work: Callable[[Store, Sealings], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store()
        await work(store, Sealings(Edge(None, "default", lambda: store, patience_seconds=0)))

    asyncio.run(run())


async def sealed(made: Sealings, message: Message) -> Message:
    sealing = made.of(message)
    assert sealing is not None
    return await sealing


def test_an_equal_message_of_the_same_id_is_the_same() -> None:
    async def work(store: Store, made: Sealings) -> None:
        first, second = await asyncio.gather(sealed(made, signal(LARGE)), sealed(made, signal(LARGE, at=2)))
        assert first is second
        assert await sealed(made, signal(LARGE)) is first
        assert len(store.put_ids) == 1
        assert made.of(signal("small")) is None

    with_store(work)


@pytest.mark.parametrize("other", [signal(LARGE, to="v"), signal(LARGE + "y")])
def test_another_message_of_the_same_id_is_itself(other: Message) -> None:
    async def work(store: Store, made: Sealings) -> None:
        first, second = await sealed(made, signal(LARGE)), await sealed(made, other)
        assert (second.key, first.key) == (other.key, "w")
        assert first.body != second.body
        assert len(store.put_ids) == 2

    with_store(work)


def test_what_is_remembered_is_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(store: Store, made: Sealings) -> None:
        monkeypatch.setattr(sealings, "_KNOWN_MAX", 2)
        for id in ("1", "2", "3", "1"):
            await sealed(made, msgspec.structs.replace(signal(LARGE), id=id))
        assert len(made._known) == 2
        assert len(store.put_ids) == 4
        monkeypatch.setattr(sealings, "_KNOWN_SECONDS", 0.0)
        await sealed(made, msgspec.structs.replace(signal(LARGE), id="1"))
        assert len(store.put_ids) == 5
        assert len(made._known) == 1

    with_store(work)


def test_what_could_not_be_stored_is_tried_again() -> None:
    async def work(store: Store, made: Sealings) -> None:
        store.away = True
        with pytest.raises(Unavailable):
            await sealed(made, signal(LARGE))
        store.away = False
        assert await sealed(made, signal(LARGE)) is not None

    with_store(work)
