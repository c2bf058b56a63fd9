"""What is still there when all is done: nothing may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from perdure_core.task_engine import state as records
from perdure_runtime.adapters.subscriptions import Entry
from perdure_schemas import topics
from tests.simulation.world import World

_KEPT = (topics.WORKER_HELLO,)
"""Nobody subscribes in these schedules."""


def waiting(world: World) -> Iterator[str]:
    """Messages that are not acknowledged yet."""
    counts: Counter[str] = Counter()
    if world.under_way:
        counts["messages under way"] = world.under_way
    for (_, topic), subscriptions in world.queues._topics.items():
        if topic in _KEPT or topic.startswith(topics.inbox("")):
            continue
        for subscription in subscriptions:
            entries: list[Entry] = list(subscription.pool)
            for member in subscription.members:
                entries += [e for e in member.inlet._ready if e.subscription is subscription]
                entries += member.held_of(subscription)
            for entry in entries:
                body = entry.message.body if entry.message is not None else None
                counts[f"{type(body).__name__} on {topic}"] += 1
    for what, number in counts.items():
        yield f"{number} {what}"


def leftovers(world: World) -> Iterator[str]:
    """Rows, timers and records, after every run has ended and its retention is over."""
    for key, row in world.store._rows.items():
        yield f"left over: a row of {key.workflow_id}, run {row.head.run_id or 'unborn'}"
    for shard in world.timers._shards.values():
        for timer in shard.timers.values():
            kind = getattr(timer.fires, "kind", type(timer.fires).__name__)
            yield f"left over: a timer, {kind}, due {(timer.due_at - world.clock.now()) / 1000:.0f} s from now"
    for (_, task_id), (_, data, expires_at) in world.tasks._rows.items():
        record = records.decode(data)
        if record.open:
            yield f"left over: an open record of task {record.task.name} ({task_id[:8]}), {record.status}"
        elif expires_at is None:
            yield f"left over: a closed record of task {record.task.name} ({task_id[:8]}) without an end"
    yield from world.watch.left_over()
    for (_, workflow_id, _), (_, run) in world.read_model._runs.items():
        yield f"left over: {workflow_id} in the read model, {run.status}"
