"""What a client promises while the read model behind the API does not know of a run yet."""

from __future__ import annotations

import pytest

from perdure import Client
from perdure._client.backend import PortsBackend
from tests.http.test_http_api import Api, with_api


def test_the_history_of_a_run_that_was_started_is_there_before_the_run_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def behind(self: PortsBackend, workflow_id: str, run_id: str | None) -> None:
        return None

    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            run = await client.start("hello", 1, id="h")
            assert await run.result() == 2
            monkeypatch.setattr(PortsBackend, "get_run", behind)
            assert await run.history()

    with_api(work)
