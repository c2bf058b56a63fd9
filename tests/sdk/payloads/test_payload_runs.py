"""Runs whose payloads are encrypted: nothing plain is stored, and whoever lacks the key can be given it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from perdure import Channel, Client, ResultTimeout, task, workflow
from perdure.cli.timeline import brief, cut
from perdure.payloads import Payloads
from perdure_runtime.ports import RunFilter
from perdure_schemas.events import Started
from perdure_schemas.messages import RunChanged

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRET = "4111-1111-1111-1111"


@task
async def charge(card: str) -> str:
    return f"charged {card}"


@workflow
async def child(card: str) -> str:
    return await charge(card)


@workflow
class Order:
    approvals: Channel[str] = Channel()

    async def run(self, card: str) -> list[str]:
        first = await child(card)
        return [first, await self.approvals.receive()]


def old() -> Payloads:
    return Payloads(keys={"old": OLD}, current="old", compress_from=32)


def both() -> Payloads:
    return Payloads(keys={"old": OLD, "new": NEW}, current="new", compress_from=32)


def test_a_run_outlives_a_new_key_and_nothing_plain_is_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    db = tmp_path / "shop.sqlite"

    async def scenario() -> None:
        async with Client.embedded(Order, child, charge, db=db, payloads=old()) as client:
            await client.start(Order, SECRET, id="o-1", memo={"card": SECRET})
        async with Client.embedded(Order, child, charge, db=db, payloads=both()) as client:
            handle = client.handle(Order, "o-1")
            await handle.signal(Order.approvals, SECRET)
            assert await handle.result(timeout=60) == [f"charged {SECRET}", SECRET]
            shown = [brief(each.event.args, cut) for each in await handle.history() if isinstance(each.event, Started)]
            assert shown == [f'["{SECRET}"]']
        async with Client.embedded(db=db, worker=False) as client:
            history = await client.handle("o-1").history()
            shown = [brief(each.event.args, cut) for each in history if isinstance(each.event, Started)]
            assert "encrypted" in shown[0]
            assert "key old" in shown[0]

    asyncio.run(scenario())
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SECRET.encode() not in stored
    assert SECRET not in caplog.text
    for key in (OLD, NEW):
        assert key not in stored
        assert key.hex() not in caplog.text
        assert repr(key) not in caplog.text


async def listed(client: Client, workflow_id: str) -> RunChanged | None:
    """The run, if lists have it already."""
    page = await client.list(RunFilter(workflow_id=workflow_id))
    return page.runs[0] if page.runs else None


def test_a_run_whose_key_is_not_here_gets_stuck_and_goes_on_with_it(tmp_path: Path) -> None:
    db = tmp_path / "shop.sqlite"
    lacking = Payloads(keys={"new": NEW}, current="new")

    async def scenario() -> None:
        async with Client.embedded(db=db, worker=False, payloads=old()) as client:
            await client.start("child", SECRET, id="c-1")
        async with Client.embedded(child, charge, db=db, payloads=lacking) as client:
            while (run := await listed(client, "c-1")) is None or run.status != "stuck":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with pytest.raises(ResultTimeout):
                await client.handle("c-1").result(timeout=0.1)
            assert "encrypted with key 'old', which is not here" in run.last_error
        async with Client.embedded(child, charge, db=db, payloads=both()) as client:
            assert await client.handle("c-1").result(timeout=60) == f"charged {SECRET}"

    asyncio.run(scenario())


@workflow(name="counted")
async def charging_first(card: str) -> str:
    return await charge(card) + await Order.approvals.receive()


@workflow(name="counted")
async def charging_another(card: str) -> str:
    return await charge(card[::-1]) + await Order.approvals.receive()


@pytest.mark.parametrize(
    "payloads", [None, Payloads(compress_from=32), old()], ids=["plain", "compressed", "encrypted"]
)
def test_what_changed_code_asks_for_is_told_unless_it_is_encrypted(payloads: Payloads | None, tmp_path: Path) -> None:
    db = tmp_path / "shop.sqlite"

    async def scenario() -> str:
        async with Client.embedded(charging_first, charge, db=db, payloads=payloads) as client:
            await client.start(charging_first, SECRET, id="c-1")
            while (run := await listed(client, "c-1")) is None or "signal" not in run.waits_for:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with Client.embedded(charging_another, charge, db=db, payloads=payloads) as client:
            await client.handle("c-1").signal("approvals", "yes")
            while (run := await listed(client, "c-1")) is None or run.status != "stuck":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return run.last_error

    told = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "the code now issues task charge, with other arguments" in told
    both_told = f'recorded ["{SECRET}"], now ["{SECRET[::-1]}"]'
    assert (both_told in told) == (payloads is None or not payloads.current)
    assert (SECRET in told) == (both_told in told)
