"""Signals over HTTP to ids that have no run."""

from __future__ import annotations

from tests.http.test_http_api import Api, with_api


def test_a_signal_to_no_run_is_taken_and_warned_of() -> None:
    async def work(api: Api, url: str) -> None:
        status, answer = await api.post("/runs/o/signals/go", {"payload": "a"})
        assert (status, answer["status"]) == (200, "ok")
        assert answer["warning"].startswith(
            "there is no run of workflow id 'o' yet: the signal on channel 'go' is kept"
        )
        await api.post("/runs", {"name": "Order", "workflow_id": "o"})
        assert "warning" not in (await api.post("/runs/o/signals/go", {"payload": "b"}))[1]

    with_api(work)
