"""The engine's side: hands a broker in this process to others on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from perdure_runtime.adapters.queues import QueueBroker, QueueConsumer
from perdure_runtime.adapters.socket import calls, frames
from perdure_runtime.adapters.subscriptions import Entry
from perdure_runtime.errors import EngineDefect, MessageTooLarge, PerdureRuntimeError, StorageUnavailable
from perdure_runtime.ports import Ports, SubscriptionType

log = logging.getLogger("perdure.socket")

_BACKLOG = 128
"""Workers that connect at the same moment, after the engine restarted."""

_SOCKET_MODE = 0o600


class SocketServer:
    """Who listens. Close it before the ports it serves."""

    def __init__(
        self, ports: Ports, path: Path, announced: calls.Announcing, *, namespaces: Sequence[str] = ()
    ) -> None:
        self._ports = ports
        self._path = path
        self._greeting = frames.Hello(frames.PROTOCOL_VERSION, list(namespaces))
        self._announced = announced
        self._peers: set[_Peer] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        listener = _listener(self._path)
        self._server = await asyncio.get_running_loop().create_unix_server(
            self._accept, sock=listener, backlog=_BACKLOG
        )

    def _accept(self) -> asyncio.Protocol:
        peer = _Peer(self._ports, self._peers, self._announced, self._greeting)
        self._peers.add(peer)
        return peer.connection

    async def close(self) -> None:
        """Stop listening, end every connection, hand back what its clients held."""
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(peer.end() for peer in list(self._peers)))
        self._path.unlink(missing_ok=True)


async def serve(
    ports: Ports, path: str | Path, *, announced: calls.Announcing | None = None, namespaces: Sequence[str] = ()
) -> SocketServer:
    """Listen at `path`, over a socket file a dead process may have left: the lock of the database guards the place.

    Args:
        announced: what workers have, of who knows more of them than the broker.
        namespaces: those that engines here serve, for clients to be told; none: that is not known.

    Raises:
        StorageUnavailable: there cannot be a socket at `path`.
    """
    assert isinstance(ports.broker, QueueBroker), "only a broker of this process is served to others"
    server = SocketServer(ports, Path(path), announced or ports.broker.announced, namespaces=namespaces)
    await server.start()
    return server


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        os.chmod(path, _SOCKET_MODE)  # before it listens: nobody could connect so far
    except OSError as error:
        listener.close()
        raise StorageUnavailable(f"cannot listen at {path}: {error.strerror or error}") from error
    return listener


class _Remote:
    """One consumer of a client: delivers as long as there is credit."""

    def __init__(self, id: int, consumer: QueueConsumer, connection: frames.Connection[frames.Request]) -> None:
        self.id = id
        self.consumer = consumer
        self._connection = connection
        self._credit = 0
        self._granted = asyncio.Event()
        self.pump = asyncio.get_running_loop().create_task(self._pump())

    def grant(self, deliveries: int) -> None:
        self._credit += deliveries
        self._granted.set()

    async def _pump(self) -> None:
        while True:
            await self._connection.writable()
            if self._credit <= 0:
                self._granted.clear()
                await self._granted.wait()
            entries = await self.consumer.take(self._credit)
            self._credit -= len(entries)
            sent = [
                frames.Sent(
                    entry.id,
                    entry.subscription.topic,
                    entry.encoded(),
                    entry.redeliveries,
                    entry.reason,
                    entry.deaths,
                )
                for entry in entries
            ]
            try:
                for portion in frames.portions(sent, lambda each: len(each.data)):
                    self._connection.send(frames.Deliver(self.id, portion))
            except StorageUnavailable:
                return  # the connection is gone; who notices hands back what the consumer holds

    async def close(self) -> None:
        self.pump.cancel()
        await self.consumer.close()

    def lose(self) -> None:
        self.pump.cancel()
        self.consumer.lose()


class _Peer:
    """One connected client."""

    def __init__(self, ports: Ports, peers: set[_Peer], announced: calls.Announcing, greeting: frames.Hello) -> None:
        self._ports = ports
        self._announced = announced
        self._peers = peers
        self._broker = cast(QueueBroker, ports.broker)
        self._publisher = self._broker.publisher()
        self._remotes: dict[int, _Remote] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeting = greeting
        self._greeted = False
        self._ended = False
        self.connection = frames.Connection(frames.request_decoder(), self._received, self._lost)

    def _lost(self, reason: str) -> None:
        """The client is gone without a word."""
        remotes, self._remotes = self._remotes, {}
        for remote in remotes.values():
            remote.lose()
        self._start(self.end())

    async def end(self) -> None:
        self._ended = True
        self._peers.discard(self)
        self.connection.abort()
        remotes, self._remotes = self._remotes, {}
        for remote in remotes.values():
            await remote.close()

    def _received(self, requests: Sequence[frames.Request]) -> None:
        publishes: list[frames.Publish] = []
        for request in requests:
            if not self._greeted:
                self._greet(request)
                continue
            match request:
                case frames.Publish():
                    publishes.append(request)
                case frames.Ack() | frames.Credit() | frames.Nack() | frames.Begin() | frames.Spare():
                    self._steer(request)
                case _:
                    self._start(self._handle(request))
        if publishes:
            self._start(self._publish(publishes))

    def _steer(self, request: frames.Ack | frames.Credit | frames.Nack | frames.Begin | frames.Spare) -> None:
        remote = self._remotes.get(request.consumer)
        if remote is None:
            return  # it crossed the end of its consumer
        match request:
            case frames.Ack(entries=held):
                remote.consumer.holding.settle(_entries(remote, held))
            case frames.Credit(deliveries=deliveries):
                remote.grant(deliveries)
            case frames.Nack(entries=held, delay_ms=delay_ms):
                remote.consumer.hand_back(_entries(remote, held), delay_ms)
            case frames.Begin(entries=held):
                remote.consumer.holding.begin(_entries(remote, held))
            case frames.Spare(entries=held):
                remote.consumer.holding.spare(_entries(remote, held))

    def _greet(self, request: frames.Request) -> None:
        if not isinstance(request, frames.Hello) or request.version != frames.PROTOCOL_VERSION:
            self.connection.send(self._greeting)
            self.connection.refuse("a client of another release")
            return
        self._greeted = True
        self.connection.send(self._greeting)

    async def _publish(self, requests: list[frames.Publish]) -> None:
        """All that came together is one publish, confirmed by one frame."""
        by_namespace: dict[str, list[tuple[str, str, bytes]]] = {}
        for request in requests:
            by_namespace.setdefault(request.namespace, []).extend(request.batch)
        ids = [request.id for request in requests]
        await self._confirmed(
            ids, *(self._publisher.publish_encoded(name, batch) for name, batch in by_namespace.items())
        )

    async def _handle(self, request: frames.Request) -> None:
        match request:
            case frames.PublishRaw(id=id, topic=topic, namespace=namespace, data=data, reason=reason):
                await self._confirmed([id], self._publisher.publish_raw(topic, namespace, data, reason))
            case frames.Subscribe():
                await self._confirmed([request.id], self._subscribe(request))
            case frames.Unsubscribe(id=id, consumer=consumer):
                if consumer in self._remotes:
                    await self._remotes.pop(consumer).close()
                await self._confirmed([id])
            case frames.Pause(id=id, consumer=consumer, paused=paused):
                remote = self._remotes.get(consumer)
                if remote is not None:
                    await (remote.consumer.pause() if paused else remote.consumer.resume())
                await self._confirmed([id])
            case frames.Call():
                await self._call(request)
            case _:
                self.connection.refuse("a request out of place")

    async def _subscribe(self, request: frames.Subscribe) -> None:
        consumer = await self._broker.subscribe(
            request.namespace, request.topics, request.subscription, cast(SubscriptionType, request.mode)
        )
        if self._ended:
            await consumer.close()
            return
        self._remotes[request.consumer] = _Remote(request.consumer, consumer, self.connection)

    async def _call(self, request: frames.Call) -> None:
        try:
            data = await calls.answer(self._ports, self._announced, request.method, request.arguments)
        except (calls.NoSuchCall, msgspec.ValidationError) as error:
            self._send(frames.Failed([request.id], StorageUnavailable.__name__, f"the engine cannot answer: {error}"))
        except Exception as error:
            self._fail([request.id], f"call {request.method}", error)
        else:
            self._result(request.id, data)

    def _result(self, id: int, data: bytes) -> None:
        try:
            self._send(frames.Result(id, data))
        except MessageTooLarge as error:  # who asks for less gets it, who hears nothing waits for ever
            self._send(frames.Failed([id], type(error).__name__, str(error)))

    async def _confirmed(self, ids: list[int], *work: Coroutine[Any, Any, None]) -> None:
        try:
            for each in work:
                await each
        except Exception as error:
            self._fail(ids, "request", error)
        else:
            self._send(frames.Done(ids))

    def _fail(self, ids: list[int], what: str, error: Exception) -> None:
        """Whoever asked is answered, whatever happened: who hears nothing waits for ever."""
        if not isinstance(error, PerdureRuntimeError):
            log.error("a %s of the socket failed", what, exc_info=error, extra={"action": "socket_request_failed"})
            error = EngineDefect(f"a {what} failed by a defect of the engine, whose log has the traceback: {error!r}")
        self._send(frames.Failed(ids, type(error).__name__, str(error)))

    def _send(self, frame: msgspec.Struct) -> None:
        try:
            self.connection.send(frame)
        except StorageUnavailable:
            pass  # nobody is there to be told; the client has told its callers

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _entries(remote: _Remote, held: list[frames.Held]) -> list[Entry]:
    return [entry for id, number in held if (entry := remote.consumer.holding.find(id, number)) is not None]
