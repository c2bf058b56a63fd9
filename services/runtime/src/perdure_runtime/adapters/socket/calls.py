"""Reads of the engine's state for other processes: one coder per method, shared by both sides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar, cast

import msgspec

from perdure_runtime.adapters.queues import QueueBroker
from perdure_runtime.announced import Announced
from perdure_runtime.blobs import fetch
from perdure_runtime.ports import Delivery, Ports, Routing, RunFilter, RunKey, Undeliverable
from perdure_schemas.blobs import Blob
from perdure_schemas.codec import decode, decode_change, encode, encode_change, encode_events
from perdure_schemas.messages import RunChanged, TaskChanged

ValueT = TypeVar("ValueT")
_ChangeT = TypeVar("_ChangeT", RunChanged, TaskChanged)


class NoSuchCall(Exception):
    """A client of another release asks for it."""


Announcing: TypeAlias = Callable[[str], Awaitable[Announced]]
"""What workers have, of a namespace."""

_encode = msgspec.msgpack.encode


def read_value(data: bytes, kind: type[ValueT]) -> ValueT:
    return msgspec.msgpack.decode(data, type=kind)


def read_changes(data: bytes, kind: type[_ChangeT]) -> list[_ChangeT]:
    changes = [decode_change(item) for item in read_value(data, list[bytes])]
    return [change for change in changes if isinstance(change, kind)]


async def answer(  # noqa: C901 - one branch per method
    ports: Ports, announced: Announcing, method: str, arguments: bytes
) -> bytes:
    """Raises NoSuchCall, and whatever the port raises."""
    match method:
        case "history":
            key, run_id, after_seq, up_to, limit, size = read_value(arguments, tuple[RunKey, str, int, int, int, int])
            return encode_events(await ports.store.history(key, run_id, after_seq, up_to, limit, bytes_max=size))
        case "list_runs":
            namespace, where, limit, cursor = read_value(arguments, tuple[str, RunFilter, int, str | None])
            page = await ports.read_model.list_runs(namespace, where, limit, cursor)
            return _encode((_changes(page.runs), page.cursor))
        case "get_run":
            run = await ports.read_model.get_run(*read_value(arguments, tuple[str, str, str | None]))
            return _changes([] if run is None else [run])
        case "list_tasks":
            asked = read_value(arguments, tuple[str, str, str])
            broker = cast(QueueBroker, ports.broker)  # as is asserted by who serves it
            return _changes(broker.as_held(asked[0], await ports.read_model.list_tasks(*asked)))
        case "dead_letters":
            broker = cast(QueueBroker, ports.broker)
            letters = await broker.dead_letters(*read_value(arguments, tuple[str, int]))
            return _encode([_letter(letter) for letter in letters])
        case "counts":
            return _encode(await ports.read_model.counts(read_value(arguments, str)))
        case "announced":
            return _encode(await announced(read_value(arguments, str)))
        case "put_blob":
            await ports.blobs.put(*read_value(arguments, tuple[str, Blob, bytes]))
            return b""
        case "get_blob":
            return _encode((await fetch(ports.blobs, *read_value(arguments, tuple[str, Blob])),))
        case "get_routing":
            return _encode(await ports.routing.get(*read_value(arguments, tuple[str, str])))
        case "put_routing":
            await ports.routing.put(*read_value(arguments, tuple[str, str, Routing]))
            return b""
        case _:
            raise NoSuchCall(method)


Letter: TypeAlias = tuple[str, bytes, str | None, int]
"""(topic, data, why it is no message, redeliveries)."""


def _letter(letter: Delivery | Undeliverable) -> Letter:
    if isinstance(letter, Undeliverable):
        return letter.topic, letter.data, letter.error, letter.redeliveries
    return letter.topic, encode(letter.message), None, letter.redeliveries


def read_letters(data: bytes) -> list[Delivery | Undeliverable]:
    found: list[Delivery | Undeliverable] = []
    for topic, encoded, error, redeliveries in read_value(data, list[Letter]):
        if error is None:
            found.append(Delivery(topic=topic, message=decode(encoded), redeliveries=redeliveries))
        else:
            found.append(Undeliverable(topic=topic, data=encoded, error=error, redeliveries=redeliveries))
    return found


def _changes(changes: Sequence[RunChanged | TaskChanged]) -> bytes:
    return _encode([encode_change(change) for change in changes])
