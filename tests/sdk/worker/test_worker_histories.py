"""Pages of histories whose large values have to be fetched: once, if wanted, and without another question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from perdure._payloads.edge import Later
from perdure._worker import histories
from perdure._worker.histories import Histories
from perdure._worker.turns import TurnJob
from perdure_runtime.ports import Delivery
from perdure_schemas.common import NULL
from perdure_schemas.events import Recorded, SignalReceived
from perdure_schemas.messages import GetHistory, HistoryPage, Message, RunWorkflowTask

ASK_SECONDS = 0.02


def page(after: int, *, events: int = 1) -> HistoryPage:
    records = [
        Recorded(
            seq=seq, at=1, cause=f"c{seq}", event=SignalReceived(channel="c", payload=NULL, sender="s", number=seq)
        )
        for seq in range(after + 1, after + 1 + events)
    ]
    return HistoryPage(workflow_id="w", run_id="r", events=records, after_seq=after, last_seq=2)


def job(committed: int) -> TurnJob:
    task = RunWorkflowTask(
        workflow_task_id="t", workflow_id="w", run_id="r", name="n", generation=0, attempt=1, committed=committed,
        base=committed, base_hash="h", hashes=[], previous_hash="", previous_nonce="", previous_base=0, events=[],
    )  # fmt: skip
    message = Message(id="m", namespace="ns", key="w", at=1, body=task)
    return TurnJob(task, Delivery(topic="t", message=message, redeliveries=0))


class Desk:
    """A histories desk, and what it does: every page has something to fetch, which comes when it may."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.opened: list[int] = []
        self.ready: list[TurnJob] = []
        self.may = asyncio.Event()
        self.error: Exception | None = None
        self.histories = Histories(self._ask, self.ready.extend, self.ready.append, opener=self._open, reply_topic="i")

    def _ask(self, question: GetHistory) -> None:
        self.asked.append(question.after_seq)

    def _open(self, found: HistoryPage) -> Later[HistoryPage]:
        self.opened.append(found.after_seq)

        async def opening() -> HistoryPage:
            await self.may.wait()
            error, self.error = self.error, None
            if error is not None:
                raise error
            return found

        return opening


@pytest.fixture
def desk_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Desk], Awaitable[None]]], None]:
    monkeypatch.setattr(histories, "ASK_SECONDS_FIRST", ASK_SECONDS)

    async def main(scenario: Callable[[Desk], Awaitable[None]]) -> None:
        async with asyncio.timeout(60):
            await scenario(Desk())

    return lambda scenario: asyncio.run(main(scenario))


DeskDoes = Callable[[Callable[[Desk], Awaitable[None]]], None]


def test_while_a_page_is_opened_nothing_is_asked_and_no_other_is_opened(desk_does: DeskDoes) -> None:
    async def scenario(desk: Desk) -> None:
        desk.histories.fetch(job(2))
        desk.histories.receive(page(0))
        desk.histories.receive(page(0))
        await asyncio.sleep(10 * ASK_SECONDS)
        assert (desk.asked, desk.opened) == ([0], [0])
        desk.may.set()
        while len(desk.asked) < 2:  # noqa: ASYNC110 - until the first page is open
            await asyncio.sleep(0)
        assert desk.asked == [0, 1]
        desk.histories.receive(page(0))
        desk.histories.receive(page(1))
        while not desk.ready:  # noqa: ASYNC110
            await asyncio.sleep(0)
        desk.histories.receive(page(1))
        assert desk.opened == [0, 1]
        assert [record.seq for record in desk.ready[0].records or ()] == [1, 2]
        assert desk.histories.idle

    desk_does(scenario)


def test_who_needs_more_begins_before_a_page_that_is_being_opened(desk_does: DeskDoes) -> None:
    async def scenario(desk: Desk) -> None:
        desk.histories.fetch(job(2), 1)
        desk.histories.receive(page(1))
        desk.histories.fetch(job(2))
        assert desk.asked == [1, 0]
        desk.may.set()
        desk.histories.receive(page(0, events=2))
        while not desk.ready:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert [[record.seq for record in each.records or ()] for each in desk.ready] == [[1, 2], [1, 2]]

    desk_does(scenario)


def test_a_page_that_cannot_be_opened_is_asked_for_again(desk_does: DeskDoes) -> None:
    async def scenario(desk: Desk) -> None:
        desk.error = OSError("away")
        desk.may.set()
        desk.histories.fetch(job(1))
        desk.histories.receive(page(0))
        while len(desk.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(ASK_SECONDS / 10)
        desk.histories.receive(page(0))
        while not desk.ready:  # noqa: ASYNC110
            await asyncio.sleep(0)

    desk_does(scenario)
