"""Waiting for the end of a run."""

from __future__ import annotations

import asyncio

from perdure._client.backend import Backend
from perdure._client.requests import Question, Requests, any_run
from perdure.errors import RunNotFound
from perdure_schemas import topics
from perdure_schemas.events import Recorded, RunEnded, Started
from perdure_schemas.messages import RunChanged, RunResult, WaitForResult

VISIBLE_SECONDS_MAX = 2.0
"""What was recorded is seen by others within milliseconds; what is not seen by then does not exist."""
VISIBLE_POLL_SECONDS = 0.02
HISTORY_PAGE = 1_000


class RunEnd:
    """How a run ends, told by the engine; of a run that continues as a new one, that one's end."""

    __slots__ = ("_expected", "_requests", "_workflow_id", "first_run_id", "generation")

    def __init__(self, requests: Requests, workflow_id: str, expected: Question | None) -> None:
        """`expected` is what takes the end without being asked for: of a run started here."""
        self._requests = requests
        self._workflow_id = workflow_id
        self._expected = expected
        self.generation = 0
        """Ends of older generations do not count: the run was resumed since."""
        self.first_run_id = ""
        """Of the chain that is waited for; empty: of no chain in particular."""

    async def wait(self, run_id: str) -> RunResult:
        """The end of the run; empty: of the current one."""
        current = run_id
        loop = asyncio.get_running_loop()
        patient_until = 0.0
        while True:
            ended = await self._next(current)
            if ended.status == "not-found":
                ended = await self._from_history(current) or ended
            if ended.status == "not-found" and (latest := await self._latest()) not in {"", current}:
                current = latest  # those between are past their retention
            elif ended.status == "not-found" and loop.time() < patient_until:
                await asyncio.sleep(VISIBLE_POLL_SECONDS)  # the start of the next run is on its way
            elif ended.status == "continued-as-new" and ended.next_run_id:
                current = ended.next_run_id
                self.generation = 0
                patient_until = loop.time() + VISIBLE_SECONDS_MAX
            elif ended.status == "not-found" or ended.generation >= self.generation:
                return await self._requests.backend.whole(ended)

    async def _latest(self) -> str:
        """The run that the chain has come to; empty: not known, or there is no chain."""
        found = await latest(self._requests.backend, self._workflow_id, self.first_run_id)
        return "" if found is None else found.run_id

    def drop_expected(self) -> None:
        """The run goes on from an earlier point: what came of it before is void."""
        self._expected = None

    async def next(self, run_id: str) -> RunResult:
        """The end of this very run, also if it continues as another; or that there is none."""
        return await self._requests.backend.whole(await self._next(run_id))

    async def _next(self, run_id: str) -> RunResult:
        expected, self._expected = self._expected, None
        if expected is not None and expected.answer.done():
            told: RunResult = expected.answer.result()
            return told
        wait = WaitForResult(workflow_id=self._workflow_id, run_id=run_id, reply_topic=self._requests.reply_topic)
        message = self._requests.message(self._workflow_id, wait)
        question = self._requests.question(run_id or any_run(self._workflow_id), message.id)
        try:
            if expected is None:
                question.publish(topics.WORKFLOW_ENGINE, message)
            question.repeat(topics.WORKFLOW_ENGINE, lambda: message)
            ended: RunResult = await question.answer
            return ended
        finally:
            question.close()

    async def _from_history(self, run_id: str) -> RunResult | None:
        """Of a run that others have followed under its workflow id: the engine has only the last at hand."""
        if not run_id:
            return None
        events = await history(self._requests.backend, self._workflow_id, run_id)
        if not events or not isinstance(ended := events[-1].event, RunEnded):
            return None
        return RunResult(
            workflow_id=self._workflow_id,
            run_id=run_id,
            status=ended.status,
            generation=self.generation,
            result=ended.result,
            failure=ended.failure,
            next_run_id=ended.next_run_id,
        )


async def latest(backend: Backend, workflow_id: str, first_run_id: str) -> RunChanged | None:
    """The current run of the workflow id, if it is of the chain of continue-as-new that began with that run."""
    if not first_run_id:
        return None
    try:
        current = await backend.get_run(workflow_id, None)
    except RunNotFound:  # over HTTP; the read model may be behind
        return None
    if current is None:
        return None
    return current if await first_of(backend, workflow_id, current.run_id) == first_run_id else None


async def first_of(backend: Backend, workflow_id: str, run_id: str) -> str:
    """The first run of its chain; itself where its history is not there."""
    begun = await backend.history(workflow_id, run_id, 0, 1)
    return begun[0].event.first_run_id or run_id if begun and isinstance(begun[0].event, Started) else run_id


async def history(backend: Backend, workflow_id: str, run_id: str) -> list[Recorded]:
    """All events of a run."""
    events: list[Recorded] = []
    while page := await backend.history(workflow_id, run_id, len(events), HISTORY_PAGE):  # large events are few a page
        events += page
    return events
