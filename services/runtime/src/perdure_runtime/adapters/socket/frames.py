"""What travels over the socket, and how it is cut into frames and written together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from struct import Struct as Packing
from typing import Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from perdure_runtime.errors import MessageTooLarge, StorageUnavailable

PROTOCOL_VERSION = 8
"""Of the frames. Both sides are of one installation; a mismatch says so instead of failing oddly."""

FRAME_MAX_BYTES = 64 * 1024 * 1024
"""A longer length is a peer that speaks something else, or a bug; never allocate for it."""

PORTION_MAX_BYTES = 16 * 1024 * 1024
"""Of the messages in one frame. Far under the frame's limit, so that topics and keys have room beside them, and neither
side holds more of a long batch at a time."""

_LENGTH = Packing(">I")
_READ_BYTES = 256 * 1024


Held: TypeAlias = tuple[int, int]
"""(entry, redeliveries): a delivery that the client has."""


class Hello(Struct, array_like=True, tag=0):
    """The first frame of each side."""

    version: int
    namespaces: list[str] = []
    """Of the engine's: those that it serves; none: it does not say."""


class Publish(Struct, array_like=True, tag=1):
    id: int
    namespace: str
    batch: list[tuple[str, str, bytes]]
    """(topic, key, encoded message)."""


class PublishRaw(Struct, array_like=True, tag=2):
    id: int
    topic: str
    namespace: str
    data: bytes
    reason: str


class Subscribe(Struct, array_like=True, tag=3):
    id: int
    consumer: int
    """Chosen by the client, unique in the connection."""
    namespace: str
    topics: list[str]
    subscription: str
    mode: str
    """A `SubscriptionType`."""


class Credit(Struct, array_like=True, tag=4):
    """The server may deliver this many more."""

    consumer: int
    deliveries: int


class Ack(Struct, array_like=True, tag=5):
    consumer: int
    entries: list[Held]


class Nack(Struct, array_like=True, tag=6):
    consumer: int
    entries: list[Held]
    delay_ms: int


class Unsubscribe(Struct, array_like=True, tag=7):
    id: int
    consumer: int


class Call(Struct, array_like=True, tag=8):
    """A read, or a change of routing or blobs: see `calls`."""

    id: int
    method: str
    arguments: bytes


class Begin(Struct, array_like=True, tag=9):
    """User code is about to run on them: written to the socket before it does."""

    consumer: int
    entries: list[Held]


class Spare(Struct, array_like=True, tag=10):
    consumer: int
    entries: list[Held]


class Pause(Struct, array_like=True, tag=11):
    """Deliver nothing to it, or deliver again."""

    id: int
    consumer: int
    paused: bool


Request: TypeAlias = (
    Hello | Publish | PublishRaw | Subscribe | Credit | Ack | Nack | Unsubscribe | Call | Begin | Spare | Pause
)


class Done(Struct, array_like=True, tag=1):
    ids: list[int]


class Failed(Struct, array_like=True, tag=2):
    ids: list[int]
    error: str
    """Name of a class of `perdure_runtime.errors`."""
    text: str


class Result(Struct, array_like=True, tag=3):
    id: int
    data: bytes


class Sent(Struct, array_like=True, gc=False):
    """One delivery."""

    entry: int
    topic: str
    data: bytes
    redeliveries: int
    reason: str | None
    deaths: int


class Deliver(Struct, array_like=True, tag=4):
    consumer: int
    deliveries: list[Sent]


Response: TypeAlias = Hello | Done | Failed | Result | Deliver

FrameT = TypeVar("FrameT", bound=Struct)


ItemT = TypeVar("ItemT")


def portions(items: Iterable[ItemT], size: Callable[[ItemT], int]) -> Iterator[list[ItemT]]:
    """Cut a batch into frames' worth, in order. One message is never over the limit by itself."""
    portion: list[ItemT] = []
    total = 0
    for item in items:
        bytes_more = size(item)
        if portion and total + bytes_more > PORTION_MAX_BYTES:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += bytes_more
    if portion:
        yield portion


class Connection(asyncio.Protocol, Generic[FrameT]):
    """Frames in and out of one socket. What one turn of the loop sends is one write."""

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[FrameT],
        received: Callable[[Sequence[FrameT]], None],
        lost: Callable[[str], None],
    ) -> None:
        self._decoder = decoder
        self._received = received
        self._lost = lost
        self._encoder = msgspec.msgpack.Encoder()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._pending: list[bytes] = []
        self._refused = ""
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if exc is not None:
            self._read_last_words()
        self._lost(self._refused or (str(exc) if exc else "the other side closed the connection"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def writable(self) -> None:
        """Wait while the other side is slow to read."""
        if not self._writable.is_set():
            await self._writable.wait()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        frames: list[FrameT] = []
        position, size = 0, len(buffer)
        try:
            with memoryview(buffer) as view:
                while size - position >= _LENGTH.size:
                    (length,) = _LENGTH.unpack_from(view, position)
                    if length > FRAME_MAX_BYTES:
                        raise ValueError(f"a frame of {length} bytes; the limit is {FRAME_MAX_BYTES}")
                    end = position + _LENGTH.size + length
                    if end > size:
                        break
                    with view[position + _LENGTH.size : end] as frame:
                        frames.append(self._decoder.decode(frame))
                    position = end
        except (ValueError, msgspec.MsgspecError) as error:
            self.refuse(f"the other side sent no frame of ours: {error}")
            return
        del buffer[:position]
        if frames:
            self._received(frames)

    def _read_last_words(self) -> None:
        """What the other side wrote before it died counts, also where its death showed at a write of ours first."""
        assert self._transport is not None
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            while not self._refused and (data := os.read(descriptor, _READ_BYTES)):
                self.data_received(data)
        except OSError:
            pass  # that was all

    def send(self, frame: Struct) -> None:
        """Raises StorageUnavailable: there is no connection; MessageTooLarge: the frame is over the limit."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StorageUnavailable("the connection to the engine is lost")
        data = self._encoder.encode(frame)
        if len(data) > FRAME_MAX_BYTES:
            raise MessageTooLarge(f"a frame of {len(data)} bytes; the limit is {FRAME_MAX_BYTES}")
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._write)
        self._pending += (_LENGTH.pack(len(data)), data)

    def send_now(self, frame: Struct) -> Awaitable[None] | None:
        """As `send`. Once what is returned is done, or with `None` at once, the frame reaches the other side even if
        this process dies."""
        self.send(frame)
        self._write()
        assert self._transport is not None
        return asyncio.ensure_future(self._emptied()) if self._transport.get_write_buffer_size() else None

    async def _emptied(self) -> None:
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=0)
        await self._writable.wait()
        self._transport.set_write_buffer_limits()

    def refuse(self, reason: str) -> None:
        """End the connection for a fault of the other side."""
        self._refused = reason
        self.close()

    def close(self) -> None:
        """What was sent is written first, as far as the other side reads it."""
        self._write()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self) -> None:
        pending, self._pending = self._pending, []
        if pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(pending))


def request_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


def response_decoder() -> msgspec.msgpack.Decoder[Response]:
    return msgspec.msgpack.Decoder(Response)
