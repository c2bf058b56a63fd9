"""The one deadline of a supervised task that comes next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from perdure_core.task_engine.state import TaskRecord

Deadline = Literal["retry", "queue", "attempt", "heartbeat", "total", "watch"]

FINAL: frozenset[Deadline] = frozenset({"queue", "total"})
"""Time-outs that end the task whatever its retry policy says: nobody took it in time, or all its time is used up.
A further attempt would wait in the same queue, or have no time left."""

WATCH_MS = 3_600_000
"""A record without any deadline is looked at after an hour: it may have been met in memory and never closed
(rule 24). Rare, so the price of waiting is a stale line on a page."""
WATCH_MAX_MS = 24 * 3_600_000
"""The watch doubles up to a day, so that months of waiting cost a read a day."""


def next_deadline(record: TaskRecord) -> tuple[int, Deadline]:
    """(epoch ms, kind) of an open record; the earlier kind in `Deadline`'s order wins a tie."""
    return min(_deadlines(record), key=lambda deadline: deadline[0], default=(next_watch(record, record.at), "watch"))


def next_watch(record: TaskRecord, after: int) -> int:
    """When to look next. The times depend on the record's creation alone: whatever arms the watch arms the same timer,
    so a task has one chain of watches however often it was saved."""
    elapsed, due = max(after - record.created_at, 0), WATCH_MS
    while due <= elapsed and due < WATCH_MAX_MS:
        due = min(due * 2, WATCH_MAX_MS)
    if due <= elapsed:
        due = (elapsed // WATCH_MAX_MS + 1) * WATCH_MAX_MS
    return record.created_at + due


def _deadlines(record: TaskRecord) -> Iterator[tuple[int, Deadline]]:
    options = record.task.options
    if record.status == "waiting-retry" and record.retry_at is not None:
        yield record.retry_at, "retry"
    elif record.status == "queued" and options.queue_timeout_ms is not None:
        yield record.dispatched_at + options.queue_timeout_ms, "queue"
    if record.status != "waiting-retry" and options.attempt_timeout_ms is not None:
        yield record.dispatched_at + options.attempt_timeout_ms, "attempt"
    if record.status == "running" and not record.delegated and options.heartbeat_timeout_ms is not None:
        yield _last_sign(record) + options.heartbeat_timeout_ms, "heartbeat"
    if options.total_timeout_ms is not None:
        yield record.created_at + options.total_timeout_ms, "total"


def _last_sign(record: TaskRecord) -> int:
    return max(record.dispatched_at, record.started_at or 0, record.heartbeat_at or 0)
