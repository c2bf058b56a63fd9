"""Messages with their large values stored, of which each is made once: a question is asked again as it is."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TypeAlias

import msgspec

from perdure._payloads.edge import Edge, Later
from perdure_schemas.messages import Message

_KNOWN_MAX = 100
"""Messages that are remembered, without their large values."""
_KNOWN_SECONDS = 3600.0
"""What is repeated later is stored again: a value in transit is there for days only."""

_Mark: TypeAlias = tuple[str, str, bytes]
"""Id, key and digest of the body. The id alone would not do: a caller of the API may give one to two messages."""


class Sealings:
    """Of one client."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._known: dict[_Mark, tuple[float, asyncio.Future[list[Message]]]] = {}
        """With the loop's time of when it was begun; the oldest first."""
        self._waiting: set[asyncio.Task[Message]] = set()

    def of(self, message: Message) -> asyncio.Future[Message] | None:
        """The message as it may be published, once its large values are stored; `None`: it has none."""
        sealing = self._edge.seal([message])
        if sealing is None:
            return None
        task = asyncio.ensure_future(self._sealed(message, sealing))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        for _, made in self._known.values():
            made.cancel()

    async def _sealed(self, message: Message, sealing: Later[list[Message]]) -> Message:
        mark = (message.id, message.key, await asyncio.to_thread(_digest, message))
        self._forget_old()
        known = self._known.get(mark)
        made = self._make(mark, sealing) if known is None else known[1]
        (sealed,) = await asyncio.shield(made)
        return sealed

    def _make(self, mark: _Mark, sealing: Later[list[Message]]) -> asyncio.Future[list[Message]]:
        made = asyncio.ensure_future(sealing())
        made.add_done_callback(lambda done: self._forget_failed(mark, done))
        self._known[mark] = (asyncio.get_running_loop().time(), made)
        return made

    def _forget_old(self) -> None:
        """So that one more is no more than may be."""
        since = asyncio.get_running_loop().time() - _KNOWN_SECONDS
        while self._known:
            oldest = next(iter(self._known))
            if len(self._known) < _KNOWN_MAX and self._known[oldest][0] > since:
                return
            del self._known[oldest]

    def _forget_failed(self, mark: _Mark, done: asyncio.Future[list[Message]]) -> None:
        if done.cancelled() or done.exception() is not None:
            known = self._known.get(mark)
            if known is not None and known[1] is done:
                del self._known[mark]


def _digest(message: Message) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(message.body)).digest()
