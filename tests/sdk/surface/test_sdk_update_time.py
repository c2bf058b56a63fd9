"""An update that is not answered in time, and how it is asked for again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import Channel, Client, UpdateTimeout, update, workflow
from perdure.handle import UPDATE_SECONDS
from tests.cli.dev_process import ENVIRONMENT, perdure
from tests.http.test_http_api import Api, open_api


@workflow
class Desk:
    """Its update waits for a signal."""

    go: Channel[str] = Channel()

    def __init__(self) -> None:
        self.asked = 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    @update
    async def approve(self, what: str) -> str:
        self.asked += 1
        return f"{what} {await self.go.receive()} {self.asked}"


def test_it_is_told_and_can_be_asked_for_again() -> None:
    async def run() -> None:
        async with Client.embedded(Desk) as client:
            await check(client)

    asyncio.run(run())


def test_also_over_http() -> None:
    async def run() -> None:
        async with open_api(more=[Desk]) as (_, url), Client.connect(url) as client:
            await check(client)

    asyncio.run(asyncio.wait_for(run(), 60))


async def check(client: Client) -> None:
    run = await client.start(Desk, id="d")
    with pytest.raises(UpdateTimeout) as told:
        await run.options(update_timeout=0.2).update(Desk.approve, "a")
    asked, text = told.value, str(told.value)
    assert "update 'approve' of 'd' was not answered within 0.2 s" in text
    assert "may be done yet" in text
    assert f"options(update_id={asked.update_id!r})" in text
    with pytest.raises(UpdateTimeout, match="'mine'"):
        await run.options(update_timeout=0.2, update_id="mine").update("approve", "b")
    for word in ("yes", "no"):
        await run.signal(Desk.go, word)
    again = run.options(update_id=asked.update_id)
    assert [await again.update(Desk.approve, "a") for _ in range(2)] == ["a yes 2"] * 2, "done once"
    assert await run.options(update_id="mine").update(Desk.approve, "b") == "b no 2"


def test_a_stuck_or_paused_run_is_named() -> None:
    async def run() -> None:
        async with Client.embedded(Desk) as client:
            run = await client.start(Desk, id="d")
            await run.pause()
            while (await run.describe()).status != "paused":  # noqa: ASYNC110 - read models lag
                await asyncio.sleep(0.01)
            with pytest.raises(UpdateTimeout, match="the run is paused"):
                await run.options(update_timeout=0.2).update(Desk.approve, "a")

    asyncio.run(run())


def test_it_ends_by_itself_after_a_minute_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert UPDATE_SECONDS == 60.0
    monkeypatch.setattr("perdure.handle.UPDATE_SECONDS", 0.2)

    async def run() -> None:
        async with Client.embedded(Desk) as client:
            run = await client.start(Desk, id="d")
            with pytest.raises(UpdateTimeout):
                await run.update(Desk.approve, "a")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run.options(update_timeout=None).update(Desk.approve, "b"), 0.5)

    asyncio.run(run())


def test_the_blocking_face_has_it() -> None:
    with Client.embedded(Desk).sync as client:
        run = client.start(Desk, id="d")
        with pytest.raises(UpdateTimeout) as told:
            run.options(update_timeout=0.2).update(Desk.approve, "a")
        run.signal(Desk.go, "yes")
        assert run.options(update_id=told.value.update_id).update(Desk.approve, "a") == "a yes 1"


@pytest.mark.parametrize("given", [{"update_timeout": "5s"}, {"update_timeout": True}, {"update_id": 5}])
def test_what_is_no_option_is_refused(given: Any) -> None:
    async def run() -> None:
        async with Client.embedded(Desk) as client:
            with pytest.raises(TypeError, match=next(iter(given))):
                client.handle("d").options(**given)

    asyncio.run(run())


def test_a_raw_caller_says_how_long() -> None:
    async def work(api: Api) -> None:
        await api.post("/runs", {"name": "Desk", "workflow_id": "d"})
        status, told = await api.post("/runs/d/updates/approve?wait=0.1", {"args": ["a"]})
        assert (status, told["status"]) == (202, "open")
        await api.post("/runs/d/signals/go", {"payload": "yes"})
        again = {"args": ["a"], "update_id": told["update_id"]}
        assert (await api.post("/runs/d/updates/approve?wait=20", again))[1]["result"] == "a yes 1"
        assert (await api.post("/runs/d/updates/approve?wait=soon", again))[0] == 400

    async def run() -> None:
        async with open_api(more=[Desk]) as (api, _):
            await asyncio.wait_for(work(api), 60)

    asyncio.run(run())


def test_the_command_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with open_api(more=[Desk]) as (api, url):
            monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", url)
            await api.post("/runs", {"name": "Desk", "workflow_id": "d"})
            command = "update", "d", "approve", '"a"', "--update-id", "u"
            told = await asyncio.to_thread(perdure, *command, "--timeout", "0.2", code=1)
            assert "perdure update d approve" in told
            assert "--update-id u" in told
            await api.post("/runs/d/signals/go", {"payload": "yes"})
            assert await asyncio.to_thread(perdure, *command) == "a yes 1"

    asyncio.run(asyncio.wait_for(run(), 120))
