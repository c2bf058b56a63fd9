"""The API and the probes by HTTP: what is asked, what is understood, and what an outage becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from perdure_operator import api
from perdure_operator.api import HttpPerdure
from perdure_operator.facts import Routing, RunDefaults, Waiting, Work
from perdure_operator.health import Health, probes
from perdure_operator.ports import Silent, Unavailable
from perdure_operator.workers import HttpWorkers

pytestmark = pytest.mark.asyncio


class Answers:
    """A server that says what it was told to, and keeps what it was asked."""

    def __init__(self, **bodies: Any) -> None:
        self.bodies = bodies
        self.asked: list[tuple[str, str, Any]] = []
        self.tokens: set[str] = set()
        self.pause_s = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path_qs, body))
        self.tokens.add(request.headers.get("Authorization", ""))
        await asyncio.sleep(self.pause_s)
        found = self.bodies.get(request.path.rpartition("/")[2], {})
        return found if isinstance(found, web.Response) else web.json_response(found)


@asynccontextmanager
async def served(answers: Answers) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answers.answer)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        yield session, str(server.make_url("/")).rstrip("/")


async def test_the_backlog_is_asked_once_for_all_who_ask() -> None:
    answers = Answers(backlog={"backlog": [
        {"kind": "task", "name": "crop", "build": None, "waiting": 3, "in_flight": 1, "newer": "field"}
    ]})  # fmt: skip
    async with served(answers) as (session, url):
        perdure = HttpPerdure(session, url, "prod", "secret")
        first, second = await asyncio.gather(perdure.backlog(), perdure.backlog())
    assert first == second == [Waiting(kind="task", name="crop", build=None, waiting=3, in_flight=1)]
    assert answers.asked == [("GET", "/api/v1/namespaces/prod/backlog", None)]
    assert answers.tokens == {"Bearer secret"}


async def test_routing_is_read_and_written() -> None:
    defaults = {"run_timeout_ms": None, "retention_ms": 5}
    answers = Answers(**{"a b": {"current": "x", "ramping": None, "ramping_percent": 0, "defaults": defaults}})
    async with served(answers) as (session, url):
        perdure = HttpPerdure(session, url, "prod", "")
        assert await perdure.routing("a b") == Routing(current="x", defaults=RunDefaults(retention_ms=5))
        await perdure.route("a b", Routing(current="y", defaults=RunDefaults(run_timeout_ms=7)))
    assert answers.asked[1] == (
        "PUT",
        "/api/v1/namespaces/prod/routing/a%20b",
        {
            "current": "y",
            "ramping": None,
            "ramping_percent": 0,
            "defaults": {"run_timeout_ms": 7, "retention_ms": None},
        },
    )


async def test_defaults_that_nobody_declared_are_left_out_for_an_api_that_knows_none() -> None:
    answers = Answers()
    async with served(answers) as (session, url):
        await HttpPerdure(session, url, "prod", "").route("order", Routing(current="y"))
    assert [body for _, _, body in answers.asked] == [{"current": "y", "ramping": None, "ramping_percent": 0}]


async def test_topics_are_made_for_a_build() -> None:
    answers = Answers()
    async with served(answers) as (session, url):
        await HttpPerdure(session, url, "prod", "").ensure("task", ["crop"], "b1")
    assert [body for _, _, body in answers.asked] == [{"kind": "task", "names": ["crop"], "build": "b1"}]


async def test_last_errors_are_the_newest_of_both_kinds() -> None:
    run = {"workflow_id": "o", "status": "failed", "last_error": "no", "changed_at": 5, "tags": []}
    answers = Answers(runs={"runs": [run, {**run, "changed_at": 9}], "cursor": None})
    async with served(answers) as (session, url):
        found = await HttpPerdure(session, url, "prod", "").failed("order", 3)
    assert [each.changed_at for each in found] == [9, 9, 5]
    assert [path.partition("?")[2] for _, path, _ in answers.asked] == [
        "name=order&status=failed&limit=3",
        "name=order&status=stuck&limit=3",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({"error": "show the token"}, status=401),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"backlog": [{"kind": "other"}]}),
    ],
)
async def test_what_is_no_answer_is_unavailable_and_says_so(answer: Any) -> None:
    async with served(Answers(backlog=answer())) as (session, url):
        with pytest.raises(Unavailable, match=r"GET .*/backlog: "):
            await HttpPerdure(session, url, "prod", "").backlog()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda: web.json_response({"error": "no such topic"}, status=400), "400 no such topic"),
        (lambda: web.Response(text="db=prod-7", status=403), "403"),
        (lambda: web.json_response({"secret": "prod-7"}, status=403), "403"),
        (lambda: web.json_response(["prod-7"], status=403), "403"),
        (lambda: web.Response(body=b"\xff\xfe", status=500), "500"),
        (lambda: web.json_response({"error": "x" * 1000}, status=500), "500 " + "x" * 200),
    ],
)
async def test_of_a_refusal_its_status_is_told_and_what_the_api_says_and_nothing_else(answer: Any, told: str) -> None:
    async with served(Answers(backlog=answer())) as (session, url):
        with pytest.raises(Unavailable) as refused:
            await HttpPerdure(session, url, "prod", "").backlog()
    assert str(refused.value).partition("/backlog: ")[2] == told


async def test_an_api_that_is_away_is_unavailable() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Unavailable, match="ClientConnectorError"):
            await HttpPerdure(session, "http://127.0.0.1:9", "prod", "").backlog()


async def test_an_api_that_is_silent_is_asked_for_its_backlog_alone_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(api, "KEPT_S", 0.0)
    answers = Answers(backlog={"backlog": []}, builds={"builds": []})
    async with served(answers) as (session, url):
        perdure = HttpPerdure(session, url, "prod", "")
        answers.pause_s = 1.0
        with pytest.raises(Silent, match=r"/backlog: no answer within 0\.1 s"):
            await perdure.backlog()
        answers.pause_s = 0.0
        answers.asked.clear()
        for question in (perdure.builds(), perdure.routing("order"), perdure.ensure("task", ["crop"], "b1")):
            with pytest.raises(Silent, match=r"/backlog: no answer"):
                await question
        assert answers.asked == []
        assert perdure.silence.endswith("/backlog: no answer within 0.1 s")
        answers.bodies["backlog"] = web.json_response({"error": "the broker is away"}, status=503)
        with pytest.raises(Unavailable, match="503"):
            await perdure.backlog()
        assert perdure.silence == "", "who refuses answers"
        assert await perdure.builds() == []


@pytest.mark.parametrize("url", ["http://user:pw@127.0.0.1:9", "http://a..b", "http://h:99999", "http://[::1"])
async def test_an_address_that_http_has_not_is_unavailable(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Unavailable, match=r"GET http.*/backlog: \w+"):
            await HttpPerdure(session, url, "prod", "secret").backlog()


async def test_a_token_that_no_header_can_show_is_unavailable() -> None:
    async with served(Answers()) as (session, url):
        with pytest.raises(Unavailable, match="ValueError"):
            await HttpPerdure(session, url, "prod", "two\nlines").backlog()
        with pytest.raises(Unavailable, match="ValueError"):
            await HttpWorkers(session, int(url.rpartition(":")[2])).drain("127.0.0.1", "two\nlines")


async def test_a_worker_is_asked_and_told() -> None:
    answers = Answers(load={"receiving": True, "in_flight": 3, "slots": 100})
    async with served(answers) as (session, url):
        port = int(url.rpartition(":")[2])
        workers = HttpWorkers(session, port)
        assert await workers.work("127.0.0.1") == Work(receiving=True, in_flight=3, slots=100)
        await workers.drain("127.0.0.1", "secret")
        await workers.resume("127.0.0.1", "secret")
        answers.bodies = {"drain": web.Response(status=403), "load": web.Response(status=503)}
        assert await workers.work("127.0.0.1") is None
        with pytest.raises(Unavailable, match="403"):
            await workers.drain("127.0.0.1", "wrong")
    load = "/load"
    assert [(method, path) for method, path, _ in answers.asked[:3]] == [
        ("GET", load),
        ("POST", f"{load}/drain"),
        ("POST", f"{load}/resume"),
    ]
    assert "Bearer secret" in answers.tokens


async def test_a_worker_that_does_not_listen_is_not_known() -> None:
    async with aiohttp.ClientSession() as session:
        workers = HttpWorkers(session, 9)
        assert await workers.work("127.0.0.1") is None
        with pytest.raises(Unavailable):
            await workers.resume("127.0.0.1", "")


async def test_probes_tell_of_watches_that_are_deaf_and_lists_that_hang() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    async with probes(health, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:

        async def status(path: str) -> int:
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status

        now[0] = 1_000
        assert await status("/healthz") == 200, "who waits to lead has nothing to list"
        health.leads = True
        assert await status("/healthz") == 503
        health.listed(missed=0)
        assert await status("/healthz") == 200
        health.listed(missed=2)
        now[0] = 1_200
        health.listed(missed=1)
        assert health.ailments() == ["watches have missed changes for 200 s"]
        health.listed(missed=0)
        assert health.ailments() == []
        assert [await status("/readyz"), await status("/metrics")] == [200, 200]
