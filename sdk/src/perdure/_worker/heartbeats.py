"""Heartbeats of attempts: as often as user code likes, sent as seldom as will do."""

from __future__ import annotations

import asyncio

from perdure._worker.answers import Answers
from perdure._worker.execution import Attempt
from perdure._worker.handover import Handover
from perdure._worker.outbox import Answer, Outbox
from perdure_schemas.common import Payload
from perdure_schemas.messages import RunTask

HEARTBEATS_PER_TIMEOUT = 4
"""Of those that user code reports, so many are sent per heartbeat time-out: enough that one may be lost."""
HEARTBEAT_SECONDS = 1.0
"""Between heartbeats of an attempt without heartbeat time-out: progress is for people to look at."""


class Heartbeats:
    """The first is sent at once; then the latest of each interval."""

    def __init__(self, outbox: Outbox, answers: Answers) -> None:
        self._outbox = outbox
        self._answers = answers
        self._reported: Handover[Attempt] = Handover(asyncio.get_running_loop(), self._on_reported)

    def report(self, attempt: Attempt, progress: Payload | None) -> None:
        """Called by user code, in any thread."""
        if progress is not None:
            attempt.progress = progress
        self._reported.put(attempt)

    def _on_reported(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            if attempt.answered or attempt.beat_timer is not None:
                continue
            now = attempt.time.time()
            due = 0.0 if attempt.beat_at is None else attempt.beat_at + _interval_seconds(attempt.run)
            if now < due:
                attempt.beat_timer = attempt.time.call_later(due - now, self._send, attempt)
            else:
                self._send(attempt)

    def _send(self, attempt: Attempt) -> None:
        attempt.beat_timer = None
        if attempt.answered:
            return
        attempt.beat_at = attempt.time.time()
        self._outbox.add(Answer([self._answers.heartbeat(attempt.run, attempt.progress)]))


def _interval_seconds(run: RunTask) -> float:
    timeout_ms = run.options.heartbeat_timeout_ms
    return HEARTBEAT_SECONDS if timeout_ms is None else timeout_ms / 1000 / HEARTBEATS_PER_TIMEOUT
