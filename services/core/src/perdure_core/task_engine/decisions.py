"""What `decide` is told beside the message, and what it may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from perdure_core.task_engine.authority import Authority as Authority
from perdure_core.task_engine.state import TaskRecord
from perdure_schemas.common import WorkflowRef
from perdure_schemas.messages import Message

Effect: TypeAlias = tuple[str, Message]
"""A topic and what to publish there."""


class Header(Struct, frozen=True, kw_only=True, gc=False):
    """Of the message under decision."""

    id: str
    at: int
    namespace: str
    waited: bool = False
    """It was held for as long as one may be held (rule 23)."""


Reason = Literal[
    "duplicate",
    "not-an-outcome",
    "settled",
    "run-ended",
    "command-gone",
    "stale-attempt",
    "stale-heartbeat",
    "too-many-waiters",
    "unknown-task",
]
"""Why a message changes nothing."""


class Hold(Struct, frozen=True, gc=False):
    """Keep it unacknowledged for at most HOLD_MS: what it waits for is likely on its way."""


class Ask(Struct, frozen=True, gc=False):
    """Read what the run's history says of the task, then decide again with it."""

    workflow: WorkflowRef
    generation: int
    wants_event: bool = False
    """Somebody waits for the result: bring the event that settled the task, if one did."""


class Save(Struct, frozen=True, kw_only=True):
    """Compare and set the record, then publish, then acknowledge."""

    record: TaskRecord
    before: Sequence[Effect] = ()
    """To be confirmed by the broker before the record is saved (rule 24)."""
    effects: Sequence[Effect] = ()
    ttl_ms: int | None = None


class Emit(Struct, frozen=True):
    """Publish, then acknowledge; the record stays."""

    effects: Sequence[Effect]


class Discard(Struct, frozen=True):
    """Nothing changes: tell who asked, stop who works for nothing, acknowledge."""

    reason: Reason
    effects: Sequence[Effect] = ()


Decision: TypeAlias = Hold | Ask | Save | Emit | Discard
