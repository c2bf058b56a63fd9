"""Committed histories, asked for in pages through the worker's inbox.

Large values of a page are fetched here, once the page is known to be wanted; until they are there, nothing is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from perdure._payloads.edge import Later
from perdure._worker.turns import TurnJob
from perdure_schemas.events import Recorded
from perdure_schemas.messages import GetHistory, HistoryPage

log = logging.getLogger("perdure.worker")

Opener: TypeAlias = Callable[[HistoryPage], Later[HistoryPage] | None]
"""As `Edge.open`: what gives the page with its large values, if it has any."""
ASK_SECONDS_FIRST = 2.0
"""A page comes within milliseconds; after this it, or the question, is lost."""
ASK_SECONDS_MAX = 30.0
SHORT_PAGES_MAX = 5
"""A replica may be behind what it sent the turn from, for a moment; after so many answers the run is gone."""


@dataclass(slots=True, eq=False)
class _Fetch:
    jobs: list[TurnJob] = field(default_factory=list)
    records: list[Recorded] = field(default_factory=list)
    after: int = 0
    """What comes up to this seq is not needed."""
    up_to: int = 0
    pause: float = field(default_factory=lambda: ASK_SECONDS_FIRST)
    short_pages: int = 0
    timer: asyncio.TimerHandle | None = None
    """Until the next question; none while a page is being opened."""
    opening: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Neither ask nor open."""
        if self.timer is not None:
            self.timer.cancel()
        if self.opening is not None:
            self.opening.cancel()
        self.timer = self.opening = None


class Histories:
    """Fetches the histories that jobs lack. Lives on the messaging loop; other runs go on meanwhile."""

    def __init__(
        self,
        ask: Callable[[GetHistory], None],
        ready: Callable[[list[TurnJob]], None],
        missing: Callable[[TurnJob], None],
        *,
        opener: Opener,
        reply_topic: str,
    ) -> None:
        """`ask` publishes; `ready` gets jobs with their records; `missing` those whose history is not there."""
        self._ask_engine = ask
        self._ready = ready
        self._missing = missing
        self._opener = opener
        self._reply_topic = reply_topic
        self._open: dict[tuple[str, str], _Fetch] = {}

    @property
    def idle(self) -> bool:
        return not self._open

    def fetch(self, job: TurnJob, after_seq: int = 0) -> None:
        key = (job.task.workflow_id, job.task.run_id)
        fetch = self._open.get(key)
        is_new = fetch is None
        if fetch is None:
            fetch = self._open[key] = _Fetch(after=after_seq)
        elif after_seq < fetch.after:  # this job needs more: begin before it
            fetch.after, fetch.records, is_new = after_seq, [], True
        fetch.jobs.append(job)
        fetch.up_to = max(fetch.up_to, job.task.committed)
        if is_new:
            self._ask(key, fetch)

    def receive(self, page: HistoryPage) -> None:
        key = (page.workflow_id, page.run_id)
        fetch = self._open.get(key)
        if fetch is None or fetch.opening is not None or page.after_seq != _last_seq(fetch):
            return  # an answer to a question that was asked twice
        opening = self._opener(page)
        if opening is None:
            self._add(key, fetch, page)
        else:
            fetch.stop()
            fetch.opening = asyncio.get_running_loop().create_task(self._finish_opening(key, fetch, opening))

    async def _finish_opening(self, key: tuple[str, str], fetch: _Fetch, opening: Later[HistoryPage]) -> None:
        try:
            page = await opening()
        except Exception as error:
            log.warning("a page of a history cannot be opened", extra={"action": "page_unopened"}, exc_info=error)
            fetch.opening = None
            fetch.timer = asyncio.get_running_loop().call_later(fetch.pause, self._ask_again, key, fetch)
        else:
            fetch.opening = None
            self._add(key, fetch, page)

    def _add(self, key: tuple[str, str], fetch: _Fetch, page: HistoryPage) -> None:
        fetch.records += page.events
        if _last_seq(fetch) >= fetch.up_to:
            self._finish(key, fetch)
        elif page.events:
            fetch.pause = ASK_SECONDS_FIRST
            self._ask(key, fetch)
        else:
            fetch.short_pages += 1
            if fetch.short_pages >= SHORT_PAGES_MAX:
                self._give_up(key, fetch)
            # else the timer asks again

    def close(self) -> list[TurnJob]:
        """Stop asking. Returns the jobs that wait."""
        waiting = [job for fetch in self._open.values() for job in fetch.jobs]
        for key in list(self._open):
            self._remove(key)
        return waiting

    def _ask(self, key: tuple[str, str], fetch: _Fetch) -> None:
        fetch.stop()
        fetch.timer = asyncio.get_running_loop().call_later(fetch.pause, self._ask_again, key, fetch)
        workflow_id, run_id = key
        self._ask_engine(
            GetHistory(
                workflow_id=workflow_id,
                run_id=run_id,
                after_seq=_last_seq(fetch),
                up_to=fetch.up_to,
                reply_topic=self._reply_topic,
            )
        )

    def _ask_again(self, key: tuple[str, str], fetch: _Fetch) -> None:
        fetch.pause = min(fetch.pause * 2, ASK_SECONDS_MAX)
        self._ask(key, fetch)

    def _finish(self, key: tuple[str, str], fetch: _Fetch) -> None:
        self._remove(key)
        for job in fetch.jobs:
            job.records = fetch.records
        self._ready(fetch.jobs)

    def _give_up(self, key: tuple[str, str], fetch: _Fetch) -> None:
        self._remove(key)
        for job in fetch.jobs:
            self._missing(job)

    def _remove(self, key: tuple[str, str]) -> None:
        self._open.pop(key).stop()


def _last_seq(fetch: _Fetch) -> int:
    return fetch.records[-1].seq if fetch.records else fetch.after
