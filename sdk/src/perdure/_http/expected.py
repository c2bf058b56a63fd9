"""Ends of runs that this API started: the engine tells them unasked, so nobody need ask at once.

A question would cost more than its answer: the engine commits what it holds before it answers, and does a turn twice.
"""

from __future__ import annotations

from perdure._client.requests import Question, Requests

KEPT_SECONDS = 10.0
"""Who wants the result of a start asks for it at once. Later, the engine is asked: the run may have been reset."""
KEPT_MAX = 1_000
"""Runs whose ends are expected: a result has at most a megabyte here, most have a hundred bytes."""


class ExpectedEnds:
    """At most one per workflow id, the oldest first."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._ends: dict[str, tuple[str, float, Question]] = {}
        """By workflow id: the run, until when it is kept, and its end."""
        self._pruning = False

    def expect(self, workflow_id: str, run_id: str) -> None:
        """It is being started; perhaps again, by somebody who got no answer."""
        known = self._ends.pop(workflow_id, None)
        question = known[2] if known is not None and known[0] == run_id else self._requests.expect(run_id)
        if len(self._ends) >= KEPT_MAX:
            del self._ends[next(iter(self._ends))]
        self._ends[workflow_id] = run_id, self._requests.loop.time() + KEPT_SECONDS, question
        if not self._pruning:
            self._pruning = True
            self._requests.loop.call_later(KEPT_SECONDS, self._prune)

    def take(self, workflow_id: str, run_id: str) -> Question | None:
        """Once: who asks again wanted another answer. An end that a resume may have undone since is not given."""
        expected, _, question = self._ends.pop(workflow_id, ("", 0.0, None))
        if question is None or expected != run_id:
            return None
        undone = question.answer.done() and getattr(question.answer.result(), "status", "") != "completed"
        return None if undone else question

    def forget(self, workflow_id: str) -> None:
        """What comes of the run as it stands is void."""
        self._ends.pop(workflow_id, None)

    def _prune(self) -> None:
        now = self._requests.loop.time()
        for workflow_id in [id for id, (_, until, _) in self._ends.items() if until <= now]:
            del self._ends[workflow_id]
        self._pruning = bool(self._ends)
        if self._pruning:
            self._requests.loop.call_later(KEPT_SECONDS, self._prune)
