"""Where a delivery that two workers have died of gets its last try: alone, so that no other dies of it a third time."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_runtime.ports import Consumer, Delivery, Undeliverable

DEATHS_MAX = 3
"""A delivery that took its worker with it so often is not tried again: it would take the next one."""
HAND_BACK_MS = 100
"""Before what had to make room is delivered again. The one try is over soon, or another worker takes the rest."""


class Ward:
    """One per worker. Whoever shares a dying worker with the culprit counts a death, too, but never the last."""

    def __init__(self) -> None:
        self._inside: Delivery | None = None

    async def admit(self, deliveries: list[Delivery], consumer: Consumer) -> list[Delivery]:
        """Those that may be handled now; the others are handed back, which is no death of theirs."""
        suspects = [each for each in deliveries if each.deaths == DEATHS_MAX - 1]
        if not suspects:
            return deliveries
        if self._inside is None:
            self._inside = suspects[0]
            admitted = [self._inside]
        else:
            admitted = [each for each in deliveries if each not in suspects]
        back = [each for each in deliveries if each not in admitted]
        if back:
            await consumer.nack(back, HAND_BACK_MS)
        return admitted

    def leave(self, deliveries: Sequence[Delivery | Undeliverable]) -> None:
        """They are answered."""
        if self._inside is not None and self._inside in deliveries:
            self._inside = None
