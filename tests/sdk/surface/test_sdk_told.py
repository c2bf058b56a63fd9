"""Who waits for a run in vain is told where it stands, as far as that is known."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from perdure import Client, Handle, QueryFailed, ResultTimeout, handle, sleep, workflow
from perdure._client import looking
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.socket import serve
from perdure_runtime.announced import Announced
from perdure_runtime.clock import SystemClock
from perdure_schemas.messages import RunChanged
from tests.contracts.test_contract_records import changed


@workflow
async def naps() -> None:
    await sleep(3_600)


@workflow
async def buggy() -> None:
    raise ValueError("seven is no number.")


def with_engine(work: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), Client.embedded(naps, buggy) as client:
            await work(client)

    asyncio.run(run())


async def becomes(run: Handle[None], status: str) -> None:
    while (await run.describe()).status != status:  # noqa: ASYNC110 - read models lag
        await asyncio.sleep(0.01)


def test_a_result_that_does_not_come_in_time_says_where_the_run_stands() -> None:
    async def work(client: Client) -> None:
        stuck = await client.start(buggy, id="b")
        await becomes(stuck, "stuck")
        with pytest.raises(ResultTimeout) as raised:
            await stuck.result(timeout=0.01)
        assert str(raised.value) == (
            "run 'b' is still open after 0.01 s, stuck: ValueError: seven is no number. "
            "It goes on once its code is mended; or terminate it"
        )
        assert (raised.value.status, raised.value.last_error) == ("stuck", "ValueError: seven is no number.")
        run = await client.start(naps, id="n")
        await becomes(run, "running")
        with pytest.raises(ResultTimeout, match=r"open after 0.01 s, running: it goes on, ask again") as raised:
            await run.result(timeout=0.01)
        assert (raised.value.status, raised.value.last_error) == ("running", "")
        await run.pause()
        await becomes(run, "paused")
        with pytest.raises(ResultTimeout, match="paused: it goes on once it is unpaused"):
            await run.result(timeout=0.01)

    with_engine(work)


def test_a_result_that_does_not_come_in_time_waits_for_no_word_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "GLANCE_SECONDS_MAX", 0.01)

    async def silent(self: Handle[None]) -> RunChanged:
        await asyncio.Event().wait()
        raise AssertionError

    async def work(client: Client) -> None:
        run = await client.start(naps)
        monkeypatch.setattr(Handle, "describe", silent)
        with pytest.raises(ResultTimeout, match="it goes on, ask again") as raised:
            await run.result(timeout=0.01)
        assert raised.value.status == ""

    with_engine(work)


@pytest.mark.asyncio
async def test_a_query_that_is_not_answered_says_that_no_worker_has_the_workflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "QUERY_SECONDS_MAX", 0.1)
    ports = memory_ports(SystemClock())
    announced = [
        Announced(["orders"], []),
        Announced([], [], broken="app.py is broken"),
        Announced(["order"], []),
    ]

    async def tell(_: str) -> Announced:
        return announced[0]

    server = await serve(ports, tmp_path / "dev.sock", announced=tell)
    async with asyncio.timeout(60), Client.connect(tmp_path / "dev.sock") as client:
        await ports.read_model.apply([("default", changed("g", 1))])
        run = client.handle("g")
        for why in ("no worker has workflow 'order'; known: orders", "app.py is broken", "is a worker running?"):
            with pytest.raises(QueryFailed, match=f"not answered within 0 s: {re.escape(why)}"):
                await run.query("state")
            del announced[0]
    await server.close()
