"""Defaults of a workflow over the HTTP API: what a start leaves to them, by JSON and by the Python client."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from perdure import Client
from perdure_schemas.common import RETENTION_MS
from perdure_schemas.events import Started
from tests.http.test_http_api import Api, hello, with_api
from tests.sdk.semantics.world import events

DECLARED = {"run_timeout_ms": 60_000, "retention_ms": 3_600_000}


async def declare(api: Api) -> None:
    async with api._session.put(api.base + "/routing/hello", json={"defaults": DECLARED}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        (None, (60_000, 3_600_000)),
        ({"tags": ["shop"]}, (60_000, 3_600_000)),
        ({"retention_ms": RETENTION_MS}, (60_000, RETENTION_MS)),
        ({"retention_ms": 1_000_000, "run_timeout_ms": 5_000_000}, (5_000_000, 1_000_000)),
    ],
)
def test_a_start_by_json(options: Any, holds: tuple[int, int]) -> None:
    async def work(api: Api, url: str) -> None:
        await declare(api)
        body = {"name": "hello", "args": [1], "workflow_id": "h", "run_id": "r"} | (
            {} if options is None else {"options": options}
        )
        assert (await api.post("/runs", body))[0] == 200
        (started, *_) = (await api.get("/runs/h/history?run_id=r"))[1]["events"]
        found = started["event"]["options"]
        assert (found["run_timeout_ms"], found["retention_ms"]) == holds

    with_api(work)


def test_a_start_by_the_client() -> None:
    async def work(api: Api, url: str) -> None:
        await declare(api)
        async with Client.connect(url) as client:
            plain = await client.start(hello, 1)
            kept = await client.start(hello, 1, retention=dt.timedelta(milliseconds=RETENTION_MS))
            found = []
            for run in (plain, kept):
                (started,) = events(await run.history(), Started)
                found.append(started.options.retention_ms)
            assert found == [3_600_000, RETENTION_MS]

    with_api(work)
