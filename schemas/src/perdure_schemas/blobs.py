"""References to values that are stored beside the messages: the outermost layer of a payload, `json+zstd+blob`.

The bytes under a reference are what the layers before it made, so that a store sees what a broker would have seen.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Struct

from perdure_schemas.common import Payload

LAYER = "+blob"
"""What the encoding of a reference ends with."""


class Blob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Stored bytes: in transit between two parties, or, with a `run_id`, a run's own."""

    id: str
    size: int
    sha256: str
    """Of the stored bytes, in hex."""
    workflow_id: str = ""
    run_id: str = ""
    """Whose it is: it goes when that run does. Empty: it is in transit, and goes by itself."""

    def is_of(self, data: bytes) -> bool:
        """Whether these are the bytes, whole and unchanged."""
        return len(data) == self.size and sha256(data).hexdigest() == self.sha256


_DECODER = msgspec.json.Decoder(Blob)
_ENCODER = msgspec.json.Encoder()


def made_of(id: str, data: bytes) -> Blob:
    """What refers to these bytes, in transit."""
    return Blob(id=id, size=len(data), sha256=sha256(data).hexdigest())


def is_reference(payload: Payload) -> bool:
    """Whether the payload's data only refers to the value."""
    return payload.encoding.endswith(LAYER)


def reference(encoding: str, blob: Blob) -> Payload:
    """The payload that refers to a value of this encoding."""
    return Payload(encoding + LAYER, _ENCODER.encode(blob))


def blob_of(payload: Payload) -> Blob | None:
    """What a reference refers to; nothing if it is none, or damaged."""
    try:
        return _DECODER.decode(payload.data) if is_reference(payload) else None
    except msgspec.MsgspecError:
        return None


def stored(payload: Payload, data: bytes) -> Payload:
    """The payload that a reference stands for, of the bytes it refers to."""
    return Payload(payload.encoding.removesuffix(LAYER), data)
