"""A worker's or a command's side: the broker of an engine in another process, and reads of its state."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from itertools import count
from pathlib import Path

import msgspec

from perdure_runtime import errors
from perdure_runtime.adapters.queues import MESSAGE_MAX_BYTES
from perdure_runtime.adapters.socket import calls, frames
from perdure_runtime.announced import Announced
from perdure_runtime.errors import MessageTooLarge, PerdureRuntimeError, StorageUnavailable
from perdure_runtime.ports import (
    RECEIVE_MAX,
    Delivery,
    Routing,
    RunFilter,
    RunKey,
    RunPage,
    SubscriptionType,
    Undeliverable,
)
from perdure_schemas.blobs import Blob
from perdure_schemas.codec import CodecError, decode, decode_events, encode
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message, RunChanged, TaskChanged

_BACK_OFF_FIRST_S = 0.05
_BACK_OFF_MAX_S = 2.0
"""Between tries to connect: short, since the engine is on this machine and restarts in well under a second."""


class Link:
    """The connection, made again whenever it is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._connection: frames.Connection[frames.Response] | None = None
        self._greeted: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.consumers: dict[int, RemoteConsumer] = {}
        self.numbers = count(1)
        self.namespaces: Sequence[str] = ()
        """Those that the engine serves; none: it does not say."""
        self.epoch = 0
        """Which connection this is: deliveries of an earlier one are no longer ours."""

    async def open(self) -> None:
        await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if self._connection is not None:
            self._connection.close()
        self._fail("this client is closed")
        for consumer in self.consumers.values():
            consumer.end()

    async def request(self, id: int, frame: msgspec.Struct) -> bytes:
        """Send it and wait for its answer. Raises what the engine's port raised, or StorageUnavailable."""
        if self._connection is None:
            raise StorageUnavailable(f"no connection to the engine at {self._path}")
        connection = self._connection
        await connection.writable()
        connection.send(frame)
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiter
        try:
            return await waiter
        finally:
            self._waiting.pop(id, None)

    def send(self, frame: msgspec.Struct) -> None:
        """Send what has no answer; it is lost if the connection is."""
        if self._connection is not None:
            try:
                self._connection.send(frame)
            except StorageUnavailable:
                pass  # the loss is noticed, and made good, by whoever keeps the connection

    def send_now(self, frame: msgspec.Struct) -> Awaitable[None] | None:
        """As `send`, but written at once: when what is returned is done, if it is not `None`."""
        if self._connection is not None:
            try:
                return self._connection.send_now(frame)
            except StorageUnavailable:
                pass  # as in `send`
        return None

    def next_id(self) -> int:
        return next(self._ids)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._greeted = loop.create_future()
        self._ended.clear()
        connection = frames.Connection(frames.response_decoder(), self._received, self._lost)
        try:
            await loop.create_unix_connection(lambda: connection, str(self._path))
        except OSError as error:
            raise StorageUnavailable(f"no engine listens at {self._path}: {error.strerror or error}") from error
        connection.send(frames.Hello(frames.PROTOCOL_VERSION))
        try:
            await self._greeted
        except StorageUnavailable:
            connection.abort()
            raise
        self.epoch += 1
        self._connection = connection
        for consumer in list(self.consumers.values()):
            await consumer.subscribe()

    async def _keep(self) -> None:
        back_off = _BACK_OFF_FIRST_S
        while True:
            await self._ended.wait()
            try:
                await self._connect()
                back_off = _BACK_OFF_FIRST_S
            except PerdureRuntimeError:
                if self._connection is not None:
                    self._connection.abort()
                self._ended.set()
                await asyncio.sleep(back_off)
                back_off = min(back_off * 2, _BACK_OFF_MAX_S)

    def _lost(self, reason: str) -> None:
        self._connection = None
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_exception(StorageUnavailable(f"the engine at {self._path} refused us: {reason}"))
        self._fail(f"the connection to the engine at {self._path} was lost: {reason}")
        self._ended.set()

    def _fail(self, text: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            if not waiter.done():
                waiter.set_exception(StorageUnavailable(text))

    def _received(self, responses: Sequence[frames.Response]) -> None:
        for response in responses:
            match response:
                case frames.Deliver(consumer=number, deliveries=deliveries):
                    if number in self.consumers:
                        self.consumers[number].push(deliveries)
                case frames.Done(ids=ids):
                    for id in ids:
                        self._answer(id, b"")
                case frames.Result(id=id, data=data):
                    self._answer(id, data)
                case frames.Failed(ids=ids, error=name, text=text):
                    self._refuse(ids, name, text)
                case frames.Hello():
                    self._greet(response)

    def _greet(self, hello: frames.Hello) -> None:
        assert self._greeted is not None
        version, self.namespaces = hello.version, hello.namespaces
        if version == frames.PROTOCOL_VERSION:
            self._greeted.set_result(None)
        else:
            text = f"the engine speaks version {version} of the socket protocol, this process {frames.PROTOCOL_VERSION}"
            self._greeted.set_exception(StorageUnavailable(f"{text}: run the same release of Perdure in both"))

    def _refuse(self, ids: Sequence[int], name: str, text: str) -> None:
        for id in ids:
            waiter = self._waiting.get(id)
            if waiter is not None and not waiter.done():
                waiter.set_exception(_error(name, text))

    def _answer(self, id: int, data: bytes) -> None:
        waiter = self._waiting.get(id)
        if waiter is not None and not waiter.done():
            waiter.set_result(data)


class RemoteConsumer:
    """A consumer whose queue is in the engine. It holds at most what `receive` asked for and did not get yet."""

    def __init__(self, link: Link, number: int, wanted: frames.Subscribe) -> None:
        self._link = link
        self._number = number
        self._wanted = wanted
        self._ready: deque[tuple[int, frames.Sent]] = deque()
        self._credit = 0
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._closed = False

    async def subscribe(self) -> None:
        """At first, and again on each new connection."""
        self._ready.clear()
        id = self._link.next_id()
        await self._link.request(id, msgspec.structs.replace(self._wanted, id=id))
        self._credit, wanted = 0, self._credit
        if self._paused:
            await self._tell_paused()
        elif self._waiter is not None:
            self._grant(wanted)

    async def receive(self, limit: int = RECEIVE_MAX) -> Sequence[Delivery | Undeliverable]:
        if self._ready:
            await asyncio.sleep(0)  # as in the engine's process: do not starve the loop
        while not self._ready:
            if self._closed:
                raise StorageUnavailable("this consumer is closed")
            if not self._paused:
                self._grant(limit)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return [_delivery(*self._ready.popleft()) for _ in range(min(limit, len(self._ready)))]

    async def ack(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        """Returns when it is sent: if the connection is lost the engine hands them to somebody else."""
        entries = _held(deliveries, self._link.epoch)
        if entries:
            self._link.send(frames.Ack(self._number, entries))

    async def nack(self, deliveries: Sequence[Delivery | Undeliverable], delay_ms: int) -> None:
        entries = _held(deliveries, self._link.epoch)
        if entries:
            self._link.send(frames.Nack(self._number, entries, delay_ms))

    def begin(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        """No round trip: it is enough that the frame has left this process before it may die."""
        entries = _held(deliveries, self._link.epoch)
        return self._link.send_now(frames.Begin(self._number, entries)) if entries else None

    def spare(self, deliveries: Sequence[Delivery]) -> Awaitable[None] | None:
        entries = _held(deliveries, self._link.epoch)
        return self._link.send_now(frames.Spare(self._number, entries)) if entries else None

    async def pause(self) -> None:
        self._paused = True
        self.push(())
        try:
            await self._tell_paused()
        except StorageUnavailable:
            pass  # the engine has handed back all; it is told when it is back

    async def resume(self) -> None:
        self._paused = False
        try:
            await self._tell_paused()
        except StorageUnavailable:
            self._paused = True
            raise
        self._wake()

    async def _tell_paused(self) -> None:
        id = self._link.next_id()
        await self._link.request(id, frames.Pause(id, self._number, self._paused))

    async def close(self) -> None:
        if self._link.consumers.pop(self._number, None) is None:
            return
        self.end()
        id = self._link.next_id()
        try:
            await self._link.request(id, frames.Unsubscribe(id, self._number))
        except StorageUnavailable:
            pass  # the engine hands back what a lost connection held

    def end(self) -> None:
        self._closed = True
        self._wake()

    def push(self, deliveries: Sequence[frames.Sent]) -> None:
        epoch = self._link.epoch
        self._credit -= len(deliveries)
        self._ready.extend((epoch, sent) for sent in deliveries)
        if self._paused:  # the engine is told, or was told when these came
            back = [(sent.entry, sent.redeliveries) for of, sent in self._ready if of == epoch]
            self._ready.clear()
            if back:
                self._link.send(frames.Nack(self._number, back, 0))
            return
        self._wake()

    def _grant(self, limit: int) -> None:
        if self._credit <= limit // 2:  # not for each message that comes: one frame grants many
            self._link.send(frames.Credit(self._number, limit - self._credit))
            self._credit = limit

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _delivery(epoch: int, sent: frames.Sent) -> Delivery | Undeliverable:
    token, error = (epoch, (sent.entry, sent.redeliveries)), sent.reason
    if error is None:
        try:
            message = decode(sent.data)
            return Delivery(
                topic=sent.topic, message=message, redeliveries=sent.redeliveries, deaths=sent.deaths, token=token
            )
        except CodecError as failure:
            error = str(failure)
    return Undeliverable(topic=sent.topic, data=sent.data, error=error, redeliveries=sent.redeliveries, token=token)


def _held(deliveries: Sequence[Delivery | Undeliverable], epoch: int) -> list[frames.Held]:
    """Those of this connection: the engine has handed back all others."""
    tokens = [delivery.token for delivery in deliveries]
    return [token[1] for token in tokens if isinstance(token, tuple) and token[0] == epoch]


class RemotePublisher:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def publish(self, batch: Sequence[tuple[str, Message]]) -> None:
        by_namespace: dict[str, list[tuple[str, str, bytes]]] = {}
        for topic, message in batch:
            data = encode(message)
            if len(data) > MESSAGE_MAX_BYTES:
                raise MessageTooLarge(
                    f"a message of {len(data)} bytes for {topic!r}; the limit is {MESSAGE_MAX_BYTES} bytes"
                )
            by_namespace.setdefault(message.namespace, []).append((topic, message.key, data))
        for namespace, encoded in by_namespace.items():
            for portion in frames.portions(encoded, lambda item: len(item[2])):
                id = self._link.next_id()
                await self._link.request(id, frames.Publish(id, namespace, portion))

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        id = self._link.next_id()
        await self._link.request(id, frames.PublishRaw(id, topic, namespace, data, reason))


class RemoteBroker:
    def __init__(self, link: Link) -> None:
        self._link = link

    def publisher(self) -> RemotePublisher:
        return RemotePublisher(self._link)

    async def subscribe(
        self, namespace: str, topics: Sequence[str], subscription: str, type: SubscriptionType
    ) -> RemoteConsumer:
        """Raises AlreadyInUse: somebody holds it exclusively, or with another type."""
        number = next(self._link.numbers)
        wanted = frames.Subscribe(0, number, namespace, list(topics), subscription, type)
        consumer = self._link.consumers[number] = RemoteConsumer(self._link, number, wanted)
        try:
            await consumer.subscribe()
        except BaseException:
            self._link.consumers.pop(number, None)
            raise
        return consumer


class RemoteReads:
    """What another process may see of runs, tasks, histories and routing; as the ports of the same names."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def history(  # noqa: PLR0917 the port's
        self, key: RunKey, run_id: str, after_seq: int, up_to: int, limit: int, *, bytes_max: int
    ) -> Sequence[Recorded]:
        return decode_events(await self._call("history", (key, run_id, after_seq, up_to, limit, bytes_max)))

    async def list_runs(self, namespace: str, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        data = await self._call("list_runs", (namespace, where, limit, cursor))
        runs, following = calls.read_value(data, tuple[bytes, str | None])
        return RunPage(runs=calls.read_changes(runs, RunChanged), cursor=following)

    async def get_run(self, namespace: str, workflow_id: str, run_id: str | None) -> RunChanged | None:
        runs = calls.read_changes(await self._call("get_run", (namespace, workflow_id, run_id)), RunChanged)
        return runs[0] if runs else None

    async def list_tasks(self, namespace: str, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        return calls.read_changes(await self._call("list_tasks", (namespace, workflow_id, run_id)), TaskChanged)

    async def dead_letters(self, namespace: str, limit: int) -> Sequence[Delivery | Undeliverable]:
        return calls.read_letters(await self._call("dead_letters", (namespace, limit)))

    async def counts(self, namespace: str) -> dict[str, dict[str, int]]:
        return calls.read_value(await self._call("counts", namespace), dict[str, dict[str, int]])

    async def announced(self, namespace: str) -> Announced:
        return calls.read_value(await self._call("announced", namespace), Announced)

    async def get_routing(self, namespace: str, workflow: str) -> Routing:
        return calls.read_value(await self._call("get_routing", (namespace, workflow)), Routing)

    async def put_routing(self, namespace: str, workflow: str, routing: Routing) -> None:
        await self._call("put_routing", (namespace, workflow, routing))

    async def _call(self, method: str, arguments: object) -> bytes:
        return await _asked(self._link, method, arguments)


class RemoteBlobs:
    """Values too large for a message; as the port `BlobAccess`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        await _asked(self._link, "put_blob", (namespace, blob, data))

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        (data,) = calls.read_value(await _asked(self._link, "get_blob", (namespace, blob)), tuple[bytes | None])
        return data


async def _asked(link: Link, method: str, arguments: object) -> bytes:
    """The answer of a method of `calls`. Raises what the engine's port raised, or StorageUnavailable."""
    id = link.next_id()
    return await link.request(id, frames.Call(id, method, msgspec.msgpack.encode(arguments)))


class SocketClient:
    """A connected client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.broker = RemoteBroker(link)
        self.reads = RemoteReads(link)
        self.blobs = RemoteBlobs(link)

    @property
    def namespaces(self) -> Sequence[str]:
        """Those that the engine serves; none: it does not say."""
        return self._link.namespaces

    async def close(self) -> None:
        """The engine hands back what this client's consumers held."""
        await self._link.close()


async def connect(path: str | Path) -> SocketClient:
    """Connect to the engine that listens at `path`.

    Raises:
        StorageUnavailable: there is none, or it is of another release.
    """
    link = Link(Path(path))
    await link.open()
    return SocketClient(link)


def _error(name: str, text: str) -> PerdureRuntimeError:
    kind = getattr(errors, name, StorageUnavailable)
    return kind(text) if issubclass(kind, PerdureRuntimeError) else StorageUnavailable(text)
