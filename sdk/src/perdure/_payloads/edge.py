"""Between a process and everything outside it: payloads are encoded outside, plain inside, and large ones off-loaded.

What is quick is done at once, on each message: `outgoing` and `incoming` compress and encrypt small values. What has to
wait for the blob store is done before and after, and only for messages that have such a value: `seal` moves large
values out of messages, `open` fetches them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

from perdure._payloads.blobs import Blobs, patiently
from perdure.convert import (
    INLINE_BYTES_MAX,
    OFFLOAD_ABOVE_BYTES,
    STORED_BYTES_MAX,
    Fetched,
    Unreadable,
    within_limit,
)
from perdure.errors import PayloadTooLarge, PayloadUnreadable
from perdure.payloads import Payloads
from perdure_core.payloads import found, replaced
from perdure_runtime.blobs import aside
from perdure_schemas.blobs import Blob, blob_of, is_reference, made_of, reference, stored
from perdure_schemas.common import Payload
from perdure_schemas.events import TurnCommitted
from perdure_schemas.messages import AttemptHeartbeat, Body, DispatchTask, HistoryPage, Message, RunWorkflowTask

T = TypeVar("T")
Later: TypeAlias = Callable[[], Awaitable[T]]
"""Something to call and await."""

_ABOUT_DIGESTS = "digest"
_AT_ONCE = 4
"""Large values on their way at a time: together as much memory as 64 MB, beside what they become."""
NOWHERE = (
    "this process was not told where large values are stored: set PERDURE_URL to the API's address (and PERDURE_TOKEN)"
)


def _no_blobs() -> Blobs | None:
    return None


class Edge:
    """For one namespace."""

    def __init__(
        self,
        payloads: Payloads | None,
        namespace: str,
        blobs: Callable[[], Blobs | None] = _no_blobs,
        *,
        above: int = OFFLOAD_ABOVE_BYTES,
        patience_seconds: float = math.inf,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        """`above`: bytes, as encoded, above which a value is off-loaded. `patience_seconds`: with an outage."""
        self._payloads = payloads
        self._namespace = namespace
        self._blobs = blobs
        self._above = above
        self._is_large: Callable[[Payload], bool] = lambda payload: len(payload.data) > above
        self._patience_seconds = patience_seconds
        self._new_id = new_id
        self._limit = asyncio.Semaphore(_AT_ONCE)

    @property
    def encodes(self) -> bool:
        """Whether small values look otherwise outside."""
        return self._payloads is not None

    # --- at once ------------------------------------------------------------------------------------

    def outgoing(self, value: T) -> T:
        """As it may be seen outside. What was sealed stays as it is."""
        if self._payloads is None:
            return value
        return replaced(value, self._encode, self._seal_digest if self._payloads.current else None)

    def incoming(self, value: T) -> T:
        """With plain payloads. One that cannot be read says so where it is used: the rest of a message may matter."""
        return value if self._payloads is None else replaced(value, self._decode, self._unseal_digest)

    def _encode(self, payload: Payload) -> Payload:
        return payload if self._payloads is None else self._payloads.encode(payload, self._namespace)

    def _decode(self, payload: Payload) -> Payload:
        if self._payloads is None or is_reference(payload):
            return payload
        try:
            return self._payloads.decode(payload, self._namespace)
        except PayloadUnreadable as error:
            return Unreadable(payload.encoding, payload.data, str(error), error.elsewhere)

    def _seal_digest(self, digest: str) -> str:
        """A digest of few possible arguments would tell which it is of."""
        if self._payloads is None or not digest or "." in digest:
            return digest
        sealed = self._payloads.seal(digest.encode(), f"{self._namespace}\n{_ABOUT_DIGESTS}")
        return f".{base64.b64encode(sealed).decode()}"

    def _unseal_digest(self, digest: str) -> str:
        if self._payloads is None or not digest.startswith("."):
            return digest
        try:
            sealed = base64.b64decode(digest[1:], validate=True)
            return self._payloads.unseal(sealed, f"{self._namespace}\n{_ABOUT_DIGESTS}").decode()
        except (PayloadUnreadable, binascii.Error, UnicodeDecodeError):
            return digest  # nothing equals it, and what it is of cannot be read either

    # --- out: before the message --------------------------------------------------------------------

    def seal(self, messages: Sequence[Message]) -> Later[list[Message]] | None:
        """What gives the messages with their large values stored, once that is durable; `None`: they have none.

        A value that several of them carry is stored once. Raises, when it is awaited, PayloadTooLarge of a value that
        cannot be sent, and Unavailable or StorageUnavailable when patience is over.
        """
        large: list[Payload] = []
        for message in messages:
            if type(message.body) is not AttemptHeartbeat:  # it comes again and again, and its progress is for a glance
                large += found(message.body, self._is_large)
        return partial(self._seal, messages, {id(payload): payload for payload in large}) if large else None

    async def _seal(self, messages: Sequence[Message], large: dict[int, Payload]) -> list[Message]:
        """Arguments that a task's supervisor is told again refer to what they were fetched from: it may need them for
        longer than anything is in transit."""
        instead: dict[int, Payload] = {}
        for message in messages:
            task = _task_told(message.body)
            if task is not None and isinstance(task.args, Fetched):
                instead[id(task.args)] = task.args.reference

        async def store(key: int, payload: Payload) -> None:
            instead[key] = await self._stored(payload)

        await asyncio.gather(*(store(key, payload) for key, payload in large.items() if key not in instead))
        return [replaced(message, lambda payload: instead.get(id(payload), payload)) for message in messages]

    def _weight(self, payload: Payload) -> int:
        """Bytes to encode or decode."""
        return 0 if self._payloads is None else len(payload.data)

    async def _stored(self, payload: Payload) -> Payload:
        async with self._limit:
            plain = payload
            payload = await aside(self._weight(plain), lambda: self._encode(plain))
            if len(payload.data) <= self._above:
                return payload
            within_limit(payload, "a value as it is stored", STORED_BYTES_MAX)
            blobs = self._blobs()
            if blobs is None:
                return _inline(payload)
            data = payload.data
            blob = await aside(len(data), lambda: made_of(self._new_id(), data))
            await patiently(lambda: blobs.put(blob, data), self._patience_seconds)
            return reference(payload.encoding, blob)

    # --- in: after the message ----------------------------------------------------------------------

    def open(self, value: T) -> Later[T] | None:
        """What gives the value with what it refers to fetched, and plain; `None`: it refers to nothing that is needed.

        What is gone, damaged or encrypted with an unknown key says so where it is used.
        """
        references = found(value, is_reference)
        if references:
            unused = _unused(value.body if isinstance(value, Message) else value)
            references = [payload for payload in references if id(payload) not in unused]
        return partial(self._open, value, references) if references else None

    async def _open(self, value: T, references: list[Payload]) -> T:
        distinct = list(dict.fromkeys(references))
        opened = dict(zip(distinct, await asyncio.gather(*map(self._fetched, distinct)), strict=True))
        wanted = {id(payload) for payload in references}
        return replaced(value, lambda payload: opened[payload] if id(payload) in wanted else payload)

    async def _fetched(self, payload: Payload) -> Payload:
        blob, blobs = blob_of(payload), self._blobs()
        if blob is None:
            reason = "it refers to a stored value in a way that this release does not know"
            return _unreadable(payload, reason, elsewhere=True)
        if blobs is None:
            reason = f"its {blob.size:,} bytes are stored beside the messages, and {NOWHERE}"
            return _unreadable(payload, reason, elsewhere=True)
        async with self._limit:
            data = await patiently(lambda: blobs.get(blob), self._patience_seconds)
            if data is None:
                return _unreadable(payload, f"its {blob.size:,} bytes are no longer stored: {_why_gone(blob)}")
            if not await aside(len(data), lambda: blob.is_of(data)):
                return _unreadable(payload, "the bytes that it refers to are damaged")
            encoded = stored(payload, data)
            plain = await aside(self._weight(encoded), lambda: self._decode(encoded))
        if isinstance(plain, Unreadable):
            return _unreadable(payload, plain.reason, elsewhere=plain.elsewhere)
        return Fetched(plain.encoding, plain.data, payload)


def _inline(payload: Payload) -> Payload:
    """Raises PayloadTooLarge: it does not fit into a message, and there is nowhere else to put it."""
    if len(payload.data) > INLINE_BYTES_MAX:
        raise PayloadTooLarge(
            f"a value of {len(payload.data):,} bytes: above {INLINE_BYTES_MAX:,} it cannot travel in a message, "
            f"and {NOWHERE}"
        )
    return payload


def _unreadable(payload: Payload, reason: str, *, elsewhere: bool = False) -> Payload:
    return Unreadable(payload.encoding, payload.data, reason, elsewhere)


def _why_gone(blob: Blob) -> str:
    if blob.run_id:
        return (
            f"the run of workflow id {blob.workflow_id!r} that it belonged to is past its retention, or it was never "
            "copied there: a value that no run has recorded is kept for 30 days"
        )
    return "a value that no run has recorded is kept for 30 days"


def _task_told(body: Body) -> DispatchTask | None:
    """The task that a worker tells its supervisor of, as it was given to it."""
    task: Any = getattr(body, "task", None)
    return task if isinstance(task, DispatchTask) else None


def _unused(body: object) -> set[int]:
    """Payloads that replay never looks at: it compares digests, and has the arguments of what it issues itself."""
    commands = []
    if isinstance(body, RunWorkflowTask | HistoryPage):
        turns = [recorded.event for recorded in body.events if isinstance(recorded.event, TurnCommitted)]
        commands = [command for turn in turns for command in turn.commands]
    if isinstance(body, RunWorkflowTask):
        commands += body.adoptable
    return {id(command.args) for command in commands if command.kind != "inline"}
