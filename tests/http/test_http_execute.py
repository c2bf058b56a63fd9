"""A start and the end of its run in one request."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Client, continue_as_new, sleep, workflow
from perdure._http.caller import Caller
from perdure.errors import AlreadyStarted, RunFailed
from tests.http.test_http_api import Api, Order, fails, hello, with_api


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


@workflow
async def twice(left: int) -> int:
    if left:
        continue_as_new(twice, left - 1)
    return await hello(1)


class Requests:
    """What the client asks for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, str]] = []
        self.waits = True
        original = Caller.request

        async def request(caller: Caller, method: str, path: str, **more: Any) -> tuple[int, bytes]:
            self.made.append((method, path))
            if not self.waits and method == "POST":
                more.pop("parameters", None)
            return await original(caller, method, path, **more)

        monkeypatch.setattr(Caller, "request", request)

    def of_runs(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path in self.made if path != "/announced"]


def test_a_run_is_started_and_awaited_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(api: Api, url: str) -> None:
        requests = Requests(monkeypatch)
        async with Client.connect(url) as client:
            assert await client.execute(hello, 1) == 2
            assert await client.execute(naps, 0.2) == "awake"
            with pytest.raises(RunFailed, match="no 3"):
                await client.execute(fails, 3)
            assert requests.of_runs() == [("POST", "/runs")] * 3

    with_api(work, more=[naps])


def test_a_start_that_begins_no_run_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            order = await client.start(Order, id="o")
            with pytest.raises(AlreadyStarted):
                await client.execute(Order, id="o", conflict="fail")
            requests = Requests(monkeypatch)
            for text in "abc":
                await order.signal(Order.go, text)
            assert await client.execute(Order, id="o", conflict="use-existing", reuse="never") == "abc"
            assert requests.made[-1][0] == "GET"

    with_api(work)


def test_the_end_of_what_continues_is_the_last_run_s() -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            assert await client.execute(twice, 2) == 2

    with_api(work, more=[twice])


def test_an_api_that_does_not_wait_is_asked_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an earlier release, or one whose wait was over: at once, not when the question is repeated."""

    async def work(api: Api, url: str) -> None:
        requests = Requests(monkeypatch)
        requests.waits = False
        async with Client.connect(url) as client:
            assert await client.execute(hello, 1) == 2
            assert [method for method, _ in requests.of_runs()] == ["POST", "GET"]

    with_api(work)


def test_any_caller_may_wait() -> None:
    async def work(api: Api, url: str) -> None:
        status, answer = await api.post("/runs?wait=20", {"name": "hello", "args": [1]})
        assert (status, answer["status"], answer["end"]["status"], answer["end"]["result"]) == (
            200,
            "ok",
            "completed",
            2,
        )
        status, answer = await api.post("/runs?wait=0.1", {"name": "Order"})
        assert (status, answer["status"], "end" in answer) == (200, "ok", False)
        assert (await api.post("/runs?wait=soon", {"name": "hello", "args": [1]}))[0] == 400

    with_api(work)
