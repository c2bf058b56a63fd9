"""Where a dispatch and the success of its task meet in memory, so that nothing is stored of either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure_runtime.ports import Delivery
from perdure_schemas.messages import AttemptOutcome, DispatchTask

HOLD_MAX_S = 1.0
"""Protocol rule 23: what is met in memory within a second is never stored."""


class Holds:
    """Deliveries kept unacknowledged for at most `seconds`, by task id."""

    def __init__(self, waited: Callable[[str, list[Delivery]], None], *, seconds: float = HOLD_MAX_S) -> None:
        """`waited` takes what nobody met in time."""
        self._seconds = seconds
        self._waited = waited
        self._held: dict[str, list[Delivery]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def meet(self, delivery: Delivery) -> list[Delivery] | None:
        """The deliveries that are done, or `None`: the record must be looked at.

        A new dispatch of a workflow's task is kept, and nothing is done yet. A success ends the dispatch that is
        kept for it: its worker has told the run (rule 21). One from before a rewind does not end what was dispatched
        after it: it was told when the run had another outcome. What else is kept for the task has waited for nothing.
        """
        key = delivery.message.key
        held = self._held.get(key)
        if held is None:
            if _dispatched(delivery) and delivery.redeliveries == 0:  # coming again, it may have a record
                self.keep(key, delivery)
                return []
            return None
        success = _success(delivery)
        if success is None:
            return None
        dispatches = [other for other in held if _dispatched(other)]
        if not dispatches or any(_generation(other) > success.generation for other in dispatches):
            return None
        others = [other for other in self.release(key) if other not in dispatches]
        if others:
            self._waited(key, others)
        return [*dispatches, delivery]

    def keep(self, key: str, delivery: Delivery) -> None:
        self._held.setdefault(key, []).append(delivery)
        if key not in self._timers:
            self._timers[key] = asyncio.get_running_loop().call_later(self._seconds, self._over, key)

    def release(self, key: str) -> list[Delivery]:
        """What is kept for the task, no longer kept."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        return self._held.pop(key, [])

    def close(self) -> None:
        """The consumer hands back what was kept."""
        for timer in self._timers.values():
            timer.cancel()

    def _over(self, key: str) -> None:
        held = self.release(key)  # a dispatch makes the record that the others look for
        self._waited(key, sorted(held, key=lambda delivery: not isinstance(delivery.message.body, DispatchTask)))


def _dispatched(delivery: Delivery) -> bool:
    body = delivery.message.body
    return isinstance(body, DispatchTask) and body.dispatched and body.workflow is not None


def _generation(delivery: Delivery) -> int:
    body = delivery.message.body
    assert isinstance(body, DispatchTask)
    return body.generation


def _success(delivery: Delivery) -> AttemptOutcome | None:
    body = delivery.message.body
    if isinstance(body, AttemptOutcome) and body.outcome == "completed" and not body.delegated:
        return body
    return None
