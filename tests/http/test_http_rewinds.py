"""A resume and a reset over HTTP of a run that has made up for its failure."""

from __future__ import annotations

import pytest

from perdure import Client, RunFailed, TaskFailed, workflow
from tests.http.test_http_api import Api, increase, refuse, with_api


@workflow
async def makes_up(n: int) -> int:
    try:
        return await refuse(n)
    except TaskFailed:
        await increase(n)
        raise


def test_a_resume_and_a_reset_from_before_what_was_done_since_say_so_unless_asked_anyway() -> None:
    async def work(api: Api, url: str) -> None:
        for way, more in (("resume", {}), ("reset", {"position": "0"})):
            run = f"/runs/{way}-made-up"
            assert (await api.post("/runs", {"name": "makes_up", "args": [1], "workflow_id": run[6:]}))[0] == 200
            assert (await api.get(f"{run}/result"))[1]["status"] == "failed"
            status, told = await api.post(f"{run}/{way}", more)
            assert (status, "completed increase (position 1)" in told["detail"]) == (409, True)
            assert (await api.post(f"{run}/{way}", {**more, "anyway": True}))[0] == 200
            async with Client.connect(url) as client:
                with pytest.raises(RunFailed):
                    await client.handle(makes_up, run[6:]).result()
                again = client.handle(makes_up, run[6:])
                assert await (again.resume(anyway=True) if way == "resume" else again.reset("0", anyway=True)) == 2

    with_api(work, more=[makes_up])
