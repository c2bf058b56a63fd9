"""A request that is sent again under the same `Idempotency-Key`, since its answer was lost."""

from __future__ import annotations

import asyncio

from tests.http.test_http_api import Api, with_api

KEY = {"Idempotency-Key": "4f0c"}


def test_a_start_again_is_the_same_run() -> None:
    async def work(api: Api, url: str) -> None:
        bodies = ({"name": "Order", "workflow_id": "o"}, {"name": "Order"})
        for body, key in zip(bodies, ("a", "b"), strict=True):
            first, again = [await api.post("/runs", body, **{"Idempotency-Key": key}) for _ in range(2)]
            assert first == again
            found = await api.get(f"/runs/{first[1]['workflow_id']}")
            assert found[1]["run_id"] == first[1]["run_id"]
        assert (await api.get("/counts"))[1]["counts"] == {"Order": {"running": 2}}

    with_api(work)


def test_an_update_again_is_done_once() -> None:
    async def work(api: Api, url: str) -> None:
        await api.post("/runs", {"name": "Order", "workflow_id": "o"})
        answers = [await api.post("/runs/o/updates/add", {"args": ["x"]}, **KEY) for _ in range(2)]
        assert [answer["result"] for _, answer in answers] == [1, 1]
        assert (await api.post("/runs/o/queries/status"))[1]["result"] == ["x"]

    with_api(work)


def test_a_task_again_has_the_same_id() -> None:
    async def work(api: Api, url: str) -> None:
        both = await asyncio.gather(*(api.post("/tasks", {"name": "increase", "args": [1]}, **KEY) for _ in range(2)))
        assert len({answer["task_id"] for _, answer in both}) == 1

    with_api(work)


def test_one_key_stands_for_as_many_things_as_are_asked() -> None:
    """Who chooses the number of an order for it asks several things about that order."""

    async def work(api: Api, url: str) -> None:
        runs = [await api.post("/runs", {"name": "Order", "workflow_id": run}, **KEY) for run in ("a", "b")]
        assert runs[0][1]["run_id"] != runs[1][1]["run_id"]
        both = await asyncio.gather(
            *(api.post(f"/runs/{run}/updates/add", {"args": [f"{run}0"]}, **KEY) for run in "ab")
        )
        assert len({answer["update_id"] for _, answer in both}) == 2
        assert [(await api.post(f"/runs/{run}/queries/status"))[1]["result"] for run in "ab"] == [["a0"], ["b0"]]
        tasks = [await api.post("/tasks", {"name": name, "args": [1]}, **KEY) for name in ("increase", "refuse")]
        assert tasks[0][1]["task_id"] != tasks[1][1]["task_id"]

    with_api(work)


def test_a_task_that_nobody_knows_is_not_found() -> None:
    async def work(api: Api, url: str) -> None:
        status, answer = await api.get("/tasks/nobody/result")
        assert (status, answer["outcome"]) == (404, "not-found")

    with_api(work)


def test_what_steers_a_run_is_done_once() -> None:
    async def work(api: Api, url: str) -> None:
        for actions in (("pause", "unpause", "cancel"), ("terminate",)):
            run = actions[-1]
            await api.post("/runs", {"name": "Order", "workflow_id": run})
            for action in actions:
                told = [await api.post(f"/runs/{run}/{action}", **{"Idempotency-Key": action}) for _ in range(2)]
                assert [status for status, _ in told] == [200, 200], action
            await api.get(f"/runs/{run}/result")
            assert (await api.post(f"/runs/{run}/pause"))[0] == 409

    with_api(work)


def test_steering_again_after_a_failure_is_done_once() -> None:
    async def work(api: Api, url: str) -> None:
        await api.post("/runs", {"name": "fails", "args": [1], "workflow_id": "f"})
        for path, body in (("resume", {}), ("reset", {"position": "0"})):
            assert (await api.get("/runs/f/result"))[1]["status"] == "failed"
            told = [await api.post(f"/runs/f/{path}", body, **{"Idempotency-Key": path}) for _ in range(2)]
            assert [(status, answer["generation"]) for status, answer in told] == [(200, told[0][1]["generation"])] * 2

    with_api(work)
