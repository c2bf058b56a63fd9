"""The one deadline of a supervised task that comes next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from perdure_core.task_engine.state import TaskRecord

Deadline = Literal["retry", "queue", "attempt", "heartbeat", "total", "watch"]

WATCH_MS = 3_600_000
"""A record without any deadline is looked at after an hour: it may have been met in memory and never closed
(rule 24). Rare, so the price of waiting is a stale line on a page."""
WATCH_MAX_MS = 24 * 3_600_000
"""The watch doubles up to a day, so that months of waiting cost a read a day."""


def next_deadline(record: TaskRecord) -> tuple[int, Deadline]:
    """(epoch ms, kind) of an open record; the earlier kind in `Deadline`'s order wins a tie."""
    return min(_deadlines(record), key=lambda deadline: deadline[0], default=(record.at + WATCH_MS, "watch"))


def watch_again(record: TaskRecord, due_at: int) -> int:
    """When to look again, after the watch that was due at `due_at`: a function of it, so that a repetition re-arms
    the same timer."""
    return due_at + min(max(due_at - record.created_at, WATCH_MS), WATCH_MAX_MS)


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
