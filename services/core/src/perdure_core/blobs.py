"""Whose stored value a reference means: what is recorded is the run's own, what travels between runs is in transit.

                 recorded (owned)                    sent to another run (lent)
    in transit ───────────────────▶ run's own  ───────────────────────────────▶ in transit, under another id

So a history never depends on another run, which its retention may take at any time, and a message never depends on its
sender. To rewrite a reference says nothing of the bytes: the shells copy those, before anybody is told.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from perdure_core.payloads import found, replaced
from perdure_schemas import ids
from perdure_schemas.blobs import LAYER, Blob, blob_of, is_reference, reference
from perdure_schemas.common import Payload
from perdure_schemas.messages import ChildOutcome, Message, SendSignal, StartWorkflow

T = TypeVar("T")

_BETWEEN_RUNS = frozenset({StartWorkflow, ChildOutcome, SendSignal})
"""What an engine sends that another run records, of all that can hold a value."""


def refers(value: object) -> bool:
    """Whether there is any reference in it."""
    return bool(found(value, is_reference))


def referred(value: object) -> list[Blob]:
    """What it refers to. Damaged references are for whoever reads them to tell of."""
    return [blob for payload in found(value, is_reference) if (blob := blob_of(payload)) is not None]


def owned(value: T, workflow_id: str, run_id: str) -> T:
    """With every reference to what is in transit as one to the same blob of that run's own."""

    def own(payload: Payload) -> Payload:
        blob = blob_of(payload)
        if blob is None or blob.run_id:
            return payload
        return _referring(payload, replace(blob, workflow_id=workflow_id, run_id=run_id))

    return replaced(value, own)


def in_transit(blob: Blob) -> Blob:
    """Where the bytes of a run's own blob came from, and may still be."""
    return replace(blob, workflow_id="", run_id="")


def lends(message: Message) -> bool:
    """Whether another run records this message, and it refers to anything."""
    return type(message.body) in _BETWEEN_RUNS and refers(message.body)


def lent(message: Message) -> tuple[Message, list[tuple[Blob, Blob]]]:
    """What another run is to be sent instead, and which blobs have to be copied before: (run's own, in transit).

    The ids of the copies are derived: the same message made again refers to the same.
    """
    if not lends(message):
        return message, []
    copies: list[tuple[Blob, Blob]] = []

    def lend(payload: Payload) -> Payload:
        blob = blob_of(payload)
        if blob is None or not blob.run_id:
            return payload
        copy = replace(in_transit(blob), id=ids.derive_id(message.id, blob.id))
        copies.append((blob, copy))
        return _referring(payload, copy)

    return replaced(message, lend), copies


def _referring(payload: Payload, blob: Blob) -> Payload:
    return reference(payload.encoding.removesuffix(LAYER), blob)
