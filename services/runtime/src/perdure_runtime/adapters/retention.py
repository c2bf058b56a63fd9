"""How much is kept of what nobody takes."""

from __future__ import annotations

from perdure_schemas import topics

DEAD_LETTERS_KEPT = 1_000
"""Per topic; the oldest go first. People look at a few, and what fails by the thousand fails for one reason."""
EVENTS_KEPT = 10_000
"""Of a composition without a projector, for one that comes a little later. State is in the stores."""
FORGOTTEN_KEPT_MS = 30 * 24 * 3_600_000
"""For so long a read model knows that a run was purged: as long as its tombstone, and longer than a message lives, so
that a change which comes late does not put the run back for ever."""
DEAD_LETTERS = topics.dead_letters("")


def kept(topic: str, subscribed: bool) -> int | None:
    """How many messages of a topic may wait in one subscription, or for the first one; `None`: all, they are work."""
    if topic.startswith(DEAD_LETTERS):
        return DEAD_LETTERS_KEPT
    if subscribed:
        return None
    if topic == topics.WORKER_HELLO:
        return 0  # it tells the present
    return EVENTS_KEPT if topic in {topics.WORKFLOW_EVENTS, topics.TASK_EVENTS} else None
