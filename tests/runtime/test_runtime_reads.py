"""What the workflow engine reads to publish again what a message recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure_runtime.actor import new_actor
from perdure_runtime.ports import Commit, Head, RunKey
from perdure_runtime.workflow_reads import CAUSED_PAGE_EVENTS, HISTORY_PAGE_STORED_BYTES, history_page, reemit
from perdure_schemas.blobs import Blob, reference
from perdure_schemas.common import NULL, Command, RunOptions, WaitsFor
from perdure_schemas.events import Event, Recorded, SignalReceived, Started, TurnCommitted
from perdure_schemas.messages import GetHistory, HistoryPage, Message, RunTask, SendSignal
from tests.runtime.parts import NAMESPACE, World

KEY = RunKey(NAMESPACE, "w")


def signal(number: int) -> SignalReceived:
    return SignalReceived(channel="c", payload=NULL, sender="s", number=number)


def turn(task_id: str) -> TurnCommitted:
    return TurnCommitted(
        workflow_task_id="",
        base=1,
        nonce="",
        generation=0,
        commands=[Command(id=task_id, position="0", kind="task", name="charge", args=NULL)],
        waits_for=WaitsFor(),
    )


@pytest.mark.parametrize("together", [1, CAUSED_PAGE_EVENTS, CAUSED_PAGE_EVENTS + 1])
def test_a_repetition_costs_what_its_message_recorded(together: int) -> None:
    """`together`: so many events of one message, the turn last."""

    async def scenario() -> None:
        world, read = World(), list[int]()
        said: list[tuple[str, Event]] = [("start", Started(run_id="r", name="n", args=NULL, options=RunOptions()))]
        said += [("turn", signal(number)) for number in range(1, together)]
        said += [("turn", turn("t")), *((f"later {number}", signal(together + number)) for number in range(2_000))]
        recorded = [Recorded(seq=seq, at=seq, cause=cause, event=event) for seq, (cause, event) in enumerate(said, 1)]
        head = Head(version=1, run_id="r", seq=len(recorded), runs=1)
        store: Any = world.ports.store
        await store.commit(
            Commit(key=KEY, expected_version=0, expected_run="", head=head, events=recorded, commit_id="c")
        )

        class Counting:
            async def history(self, *args: Any) -> Any:
                found = await store.history(*args)
                read.append(len(found))
                return found

        counting: Any = Counting()
        message = Message(
            id="turn",
            namespace=NAMESPACE,
            key="w",
            at=1,
            body=SendSignal(workflow_id="w", channel="c", payload=NULL, sender="s", number=1),
        )
        actor = new_actor(KEY)
        actor.view(*await store.load(KEY))
        published = await reemit(counting, actor, ("r", 2), message, blobs=[])
        assert [body.task_id for _, m in published if isinstance(body := m.body, RunTask)] == ["t"]
        assert sum(read) <= together + 2 * CAUSED_PAGE_EVENTS

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "fit"), [(HISTORY_PAGE_STORED_BYTES, 1), (HISTORY_PAGE_STORED_BYTES // 3, 3)])
def test_a_page_whose_values_are_large_is_short(size: int, fit: int) -> None:
    """Whoever reads it has all of them in memory."""

    async def scenario() -> None:
        world = World()
        large = reference("json", Blob(id="b", size=size, sha256="", workflow_id="w", run_id="r"))
        events: list[Event] = [Started(run_id="r", name="n", args=NULL, options=RunOptions())]
        events += [SignalReceived(channel="c", payload=large, sender="s", number=number) for number in range(1, 9)]
        recorded = [Recorded(seq=seq, at=seq, cause=f"c{seq}", event=event) for seq, event in enumerate(events, 1)]
        head = Head(version=1, run_id="r", seq=len(recorded), runs=1)
        store = world.ports.store
        await store.commit(
            Commit(key=KEY, expected_version=0, expected_run="", head=head, events=recorded, commit_id="c")
        )
        actor = new_actor(KEY)
        actor.view(*await store.load(KEY))
        found: list[int] = []
        pages = 0
        while len(found) < len(events):
            body = GetHistory(workflow_id="w", run_id="r", after_seq=len(found), up_to=0, reply_topic="i")
            _, answer = await history_page(store, actor, Message(id="q", namespace=NAMESPACE, key="w", at=1, body=body))
            assert isinstance(answer.body, HistoryPage)
            of_page = [record.seq for record in answer.body.events]
            assert 1 <= len(of_page) <= fit + (not found)
            found += of_page
            pages += 1
        assert found == list(range(1, len(events) + 1))
        assert pages == -(-8 // fit)

    asyncio.run(scenario())
