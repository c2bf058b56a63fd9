"""Signals that are not what their channel takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import Channel, Client, SerializationError, any_of, channel, signal, timer, update, workflow
from perdure.errors import Refused, UnknownName


@workflow
class Ballot:
    votes: Channel[int] = Channel()
    remarks: Channel[str | None] = Channel()

    async def run(self) -> list[object]:
        late = timer(30)
        return [await any_of(self.votes.receive(), late), await any_of(self.remarks.receive(), timer(30))]


@workflow
async def counted() -> int:
    """Its channel is made by its code, so nobody outside knows the type."""
    return await channel("votes", int).receive()


@workflow
class SortedByType:
    async def run(self) -> list[object]:
        numbers, words = channel("mixed", int).receive(), channel("mixed", str).receive()
        return [await numbers, await words]

    @update
    async def is_waiting(self) -> bool:
        return True


def with_client(work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        async with asyncio.timeout(60), Client.embedded(Ballot, counted, SortedByType) as client:
            return await work(client)

    return asyncio.run(opened())


def test_a_signal_to_no_run_is_kept_for_one_to_come_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def work(client: Client) -> object:
        with caplog.at_level(logging.WARNING, "perdure.client"):
            await client.handle("b").signal("votes", 1)
            run = await client.start(Ballot, id="b")
            await run.signal("remarks", "fine")
        return await run.result()

    assert with_client(work) == [1, "fine"]
    assert [record.getMessage() for record in caplog.records] == [
        "there is no run of workflow id 'b' yet: the signal on channel 'votes' is kept for 60 minutes, "
        "for the run that is started under it by then"
    ]


def test_a_signal_without_a_value_is_refused_where_the_channel_needs_one() -> None:
    async def work(client: Client) -> object:
        handle = await client.start(Ballot, id="b")
        nothing: Any = None
        for empty in (handle.signal("votes"), handle.signal(Ballot.votes, nothing)):
            with pytest.raises(SerializationError, match="a signal of votes needs a value: it takes int"):
                await empty
        with pytest.raises(SerializationError, match="needs a value"):
            await client.handle(Ballot, "b").signal("votes")
        await handle.signal("votes", 3)
        await handle.signal("remarks")
        return await handle.result()

    assert with_client(work) == [3, None]


def test_a_signal_of_another_type_or_to_no_channel_is_refused_where_the_workflow_is_known() -> None:
    async def work(client: Client) -> object:
        handle = await client.start("Ballot", id="b")
        with pytest.raises(SerializationError, match="a signal of votes cannot be read as int"):
            await handle.signal("votes", "three")
        with pytest.raises(UnknownName, match=r"no channel 'votse'; it has remarks \(str \| None\), votes \(int\)"):
            await handle.signal("votse", 3)
        await handle.signal(channel("extra"), 1)
        await handle.signal("votes", 3)
        await handle.signal("remarks", "fine")
        return await handle.result()

    assert with_client(work) == [3, "fine"]


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_that_cannot_be_read_is_dropped_and_the_run_goes_on(
    early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(client: Client) -> object:
        sender = client.handle("c")
        if not early:
            await client.start(counted, id="c")
        await sender.signal("votes")
        await sender.signal("votes", "three")
        await sender.signal("votes", 3)
        if early:
            await client.start(counted, id="c")
        return await sender.result()

    with caplog.at_level(logging.WARNING, "perdure.workflow"):
        assert with_client(work) == 3
    told = [record.getMessage() for record in caplog.records if record.name == "perdure.workflow"]
    assert len(told) == 2, told
    assert "run c dropped event" in told[0]
    assert "signal on channel votes: a signal of votes needs a value" in told[0]
    assert "cannot be read as int" in told[1]


def test_a_signal_is_for_the_receiver_that_can_read_it() -> None:
    async def work(client: Client) -> object:
        handle = await client.start(SortedByType, id="s")
        assert await handle.update(SortedByType.is_waiting)
        await handle.signal("mixed", "word")
        await handle.signal("mixed", 1)
        return await handle.result()

    assert with_client(work) == [1, "word"]


def test_a_signal_to_a_run_that_has_ended_is_refused_as_a_cancel_is() -> None:
    async def work() -> None:
        async with Client.embedded(Ballot) as client:
            handle = await client.start(Ballot, id="b")
            await handle.terminate()
            for refused in (handle.signal("votes", 3), handle.cancel()):
                with pytest.raises(Refused, match="the run has ended: terminated"):
                    await refused

    asyncio.run(work())


@workflow
async def sends(id: str) -> str:
    signal(id, "votes", 1)
    await signal(id, "votes", 2)
    return "sent"


@pytest.mark.parametrize(("there", "told"), [(False, "there is none: it is kept"), (True, "has ended: it is lost")])
def test_what_a_run_sends_to_nobody_is_told_in_the_log(there: bool, told: str) -> None:
    async def work() -> list[str]:
        lines: asyncio.Queue[str] = asyncio.Queue()
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: lines.put_nowait(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("perdure.workflow_engine").addHandler(handler)
        async with Client.embedded(sends, Ballot) as client:
            if there:
                ballot = await client.start(Ballot, id="b")
                await ballot.terminate()
            assert await client.execute(sends, "b") == "sent"
            try:
                return [await lines.get(), await lines.get()]
            finally:
                logging.getLogger("perdure.workflow_engine").removeHandler(handler)

    for line in asyncio.run(asyncio.wait_for(work(), 30)):
        assert "on channel 'votes' to the run of workflow id 'b'" in line
        assert told in line
