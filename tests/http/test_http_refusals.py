"""What the API refuses of a request, in words: the same that clients in Python and the command line refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import Client, Refused
from tests.http.test_http_api import Api, with_api

STARTS: list[tuple[dict[str, Any], str]] = [
    ({"workflow_id": ""}, "a workflow id is 1 to 400 printable characters; this one is ''"),
    ({"workflow_id": "a\nb"}, "a workflow id is 1 to 400 printable characters"),
    ({"name": ""}, "name: '' cannot name a workflow or task"),
    ({"name": "a b"}, "name: 'a b' cannot name a workflow or task"),
    ({"options": {"run_timeout": 5}}, "options: unknown: run_timeout; known here: attributes, memo"),
    ({"options": {"run_timeout_ms": -5}}, "options.run_timeout_ms: a duration is 0 to"),
    ({"options": {"retention_ms": 10**19}}, "retention_ms"),
]
TASKS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name: '' cannot name a workflow or task"),
    ({"options": {"timeout_ms": 5}}, "options: unknown: timeout_ms"),
    ({"options": {"total_timeout_ms": -1}}, "options.total_timeout_ms: a duration is 0 to"),
    ({"options": {"retry": {"attempts": 5}}}, "options.retry: unknown: attempts; known here: attempts_max"),
    ({"options": {"retry": {"delay_max_ms": -5}}}, "options.retry.delay_max_ms: a duration is 0 to"),
]
PARAMETERS: list[tuple[str, str]] = [
    ("/runs?attribute=x", "attribute: name=value is expected, not 'x'"),
    ("/runs?attribute=%3Dx", "attribute: name=value is expected, not '=x'"),
    ("/runs?state=failed", "unknown parameters: state; known here: attribute, cursor"),
    ("/runs/h?run=r", "unknown parameters: run; known here: run_id"),
    ("/runs/h/result?timeout=5", "unknown parameters: timeout; known here: follow, run_id, wait"),
    ("/counts?name=x", "unknown parameters: name; there are none here"),
]


@pytest.mark.parametrize(
    ("path", "body", "told"), [("/runs", *each) for each in STARTS] + [("/tasks", *each) for each in TASKS]
)
def test_what_cannot_be_started_is_a_bad_request(path: str, body: dict[str, Any], told: str) -> None:
    async def work(api: Api, url: str) -> None:
        async with asyncio.timeout(10):
            status, answer = await api.post(path, {"name": "hello" if path == "/runs" else "increase", **body})
        assert status == 400
        assert told in answer["error"]

    with_api(work)


def test_parameters_that_nobody_knows_are_a_bad_request() -> None:
    async def work(api: Api, url: str) -> None:
        for path, told in PARAMETERS:
            status, answer = await api.get(path)
            assert (status, told in answer["error"]) == (400, True), answer
        status, answer = await api.post("/runs/h/cancel?wait=5")
        assert (status, answer["error"]) == (400, "unknown parameters: wait; there are none here")

    with_api(work)


def test_a_signal_to_what_cannot_be_an_id_is_a_bad_request() -> None:
    async def work(api: Api, url: str) -> None:
        status, answer = await api.post("/runs/a%0Ab/signals/go", {"payload": 1})
        assert status == 400
        assert "a workflow id is 1 to 400 printable characters" in answer["error"]

    with_api(work)


def test_values_in_options_are_the_callers_own() -> None:
    async def work(api: Api, url: str) -> None:
        options = {"run_timeout_ms": None, "memo": {"any": {"key_ms": -1}}, "attributes": {"x": "y"}}
        status, _ = await api.post("/runs", {"name": "hello", "args": [1], "workflow_id": "h", "options": options})
        assert status == 200
        assert (await api.get("/runs/h/result?follow=false"))[0] == 200
        status, listed = await api.get("/runs?attribute=x%3Dy&limit=5")
        assert (status, len(listed["runs"])) == (200, 1)

    with_api(work)


def test_a_reset_to_nowhere_is_a_bad_request_and_resumes_nothing() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await api.post("/runs", {"name": "fails", "args": [1], "workflow_id": "f"}))[0] == 200
        assert (await api.get("/runs/f/result"))[1]["status"] == "failed"
        for body in ({}, {"position": ""}, {"position": None}):
            status, answer = await api.post("/runs/f/reset", body)
            assert (status, answer["error"]) == (400, "position: a reset needs one, such as '4' or '2.1'")
        assert (await api.get("/runs/f/result"))[1]["generation"] == 0
        async with Client.connect(url) as client:
            run = client.handle("f")
            with pytest.raises(ValueError, match="a position must not be empty"):
                await run.reset("")
            with pytest.raises(ValueError, match="a position must not be empty"):
                await run.resume(skips={"": 1})

    with_api(work)


def test_a_refused_update_says_why() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await api.post("/runs", {"name": "Order", "workflow_id": "o"}))[0] == 200
        assert (await api.post("/runs/o/terminate"))[0] == 200
        status, answer = await api.post("/runs/o/updates/add", {"args": ["x"]})
        assert (status, answer["status"]) == (409, "refused")
        assert answer["detail"].startswith("update 'add' of 'o': the run ended, or continued as new, before it")
        for path in ("updates/add", "queries/status"):
            status, answer = await api.post(f"/runs/nobody/{path}")
            assert status == 404
            assert answer["detail"].endswith("there is no run of workflow id 'nobody'")
        async with Client.connect(url) as client:
            with pytest.raises(Refused, match="before it answered"):
                await client.handle("o").update("add", "x")

    with_api(work)
