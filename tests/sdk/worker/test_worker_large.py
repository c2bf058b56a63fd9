"""A worker that was not told where large values are: what fits goes in messages."""

from __future__ import annotations

import asyncio

from perdure import task
from perdure_schemas import topics
from perdure_schemas.blobs import made_of, reference
from perdure_schemas.common import Address, TaskOptions
from perdure_schemas.messages import AttemptOutcome, RunTask, TaskOutcome
from tests.sdk.worker.engine import working


def test_without_a_store_what_fits_goes_in_the_message_and_the_rest_names_the_setting() -> None:
    @task
    async def repeat(times: int) -> str:
        return "x" * times

    @task
    async def size(text: str) -> int:
        return len(text)

    async def scenario() -> None:
        async with working(repeat, size) as (engine, _):
            await engine.run_task("repeat", 900_000)
            told = await engine.next(TaskOutcome)
            assert told.result is not None
            assert len(told.result.data) == 900_002
            await engine.run_task("repeat", 990_000)
            failed = await engine.next(AttemptOutcome, lambda outcome: outcome.outcome == "failed")
            assert failed.failure is not None
            assert failed.failure.name == "PayloadTooLarge"
            assert "set PERDURE_URL" in failed.failure.message
            args = reference("json", made_of("b", b"[]"))
            options = TaskOptions()
            run = RunTask(
                task_id="t", attempt_id="a", attempt=1, name="size", args=args, options=options,
                answer_to=[Address(topics.TASK_ENGINE, "t")],
            )  # fmt: skip
            await engine.send(topics.task_run("size"), run, key="t")
            failed = await engine.next(AttemptOutcome, lambda outcome: outcome.task_id == "t")
            assert failed.failure is not None
            assert failed.failure.retryable, "another worker may have been told"
            assert "stored beside the messages" in failed.failure.message
            assert "set PERDURE_URL" in failed.failure.message

    asyncio.run(scenario())
