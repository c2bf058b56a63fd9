"""What one round of the workflow engine gathers, and the limits it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from perdure_core.workflow_engine import decisions as d
from perdure_runtime.actor import Actor
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Delivery
from perdure_schemas.blobs import Blob

T = TypeVar("T")

HOLD_MAX_MS = 1_000
"""Protocol rule 9: a held message is committed within a second; only so does a replica learn that it is stale."""
START_HOLD_MAX_MS = 500
"""A start is committed sooner: its caller waits for the acceptance, also when no worker is there to run a turn. Not
much sooner: a commit without the first turn is one more, and the turn is asked for twice, just when there is much to
do."""
LOST_DELAY_MS = 20
"""After a lost compare-and-set another replica is at work on the run: come back soon, at most 100 ms."""
AHEAD_DELAY_MS = 300
LATER_DELAY_MS = 50
LATER_DELAY_MAX_MS = 1_000
"""What has waited long for something on its way looks again less often: a twentieth of its age, up to this."""
PUBLISH_AGAIN_SECONDS = (0.1, 0.4)
"""What is to be done for what was recorded is tried again so soon, by all steps of a round together: less than a
shutdown waits for a round (HOLD_MAX_MS)."""
UNBORN_TTL_MS = 3_600_000
"""A signal that overtook its start waits for it so long."""
TOMBSTONE_TTL_MS = 30 * 24 * 3_600_000
"""Longer than any start is accepted (14 days), so a purged run never starts twice."""


def later_ms(age_ms: int) -> int:
    """How long a message waits that is `age_ms` old and comes too early."""
    return min(LATER_DELAY_MAX_MS, max(LATER_DELAY_MS, age_ms // 20))


class Patience:
    """Of a round with what it has recorded. Handing the messages back is no help if another replica, which decided
    otherwise, has acknowledged them meanwhile (doubt D2 of the protocol): then nobody but this one knows what there is
    to copy and to publish.
    """

    def __init__(self) -> None:
        self._pauses = iter(PUBLISH_AGAIN_SECONDS)

    async def through(self, step: Callable[[], Awaitable[T]]) -> T:
        """What the step returns, which may be done again. Raises what it does, and StorageUnavailable at last."""
        while True:
            try:
                return await step()
            except StorageUnavailable:
                seconds = next(self._pauses, None)
                if seconds is None:
                    raise
            await asyncio.sleep(seconds)


@dataclass(slots=True)
class Round:
    """What one round has decided so far."""

    publish: list[d.Published] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    """What was recorded refers to: it has to be the run's own before anybody is told."""
    acks: list[Delivery] = field(default_factory=list)
    commits: list[Actor] = field(default_factory=list)
    slow: list[tuple[Actor, Delivery, d.Decision]] = field(default_factory=list)
    patience: Patience = field(default_factory=Patience)

    def answer(self, delivery: Delivery, published: Iterable[d.Published]) -> None:
        """Publish, then acknowledge."""
        self.publish.extend(published)
        self.acks.append(delivery)

    def in_hand(self) -> list[Delivery]:
        """Deliveries that are neither acknowledged, nor handed back, nor kept by their actor."""
        return list(dict.fromkeys([*self.acks, *(delivery for _, delivery, _ in self.slow)]))
