"""A worker that was not told where large values are, or cannot have one: what fits goes in messages."""

from __future__ import annotations

import asyncio

import pytest

from perdure import task
from perdure_schemas import topics
from perdure_schemas.blobs import Blob, made_of, reference
from perdure_schemas.common import Address, Failure, Payload, TaskOptions
from perdure_schemas.messages import AttemptOutcome, RunTask, TaskOutcome
from tests.sdk.worker.engine import Engine, working


@task
async def sized(text: str) -> int:
    return len(text)


@task
def sized_beside(text: str) -> int:
    return len(text)


@task(mode="process")
def sized_apart(text: str) -> int:
    return len(text)


def test_without_a_store_what_fits_goes_in_the_message_and_the_rest_names_the_setting() -> None:
    @task
    async def repeat(times: int) -> str:
        return "x" * times

    async def scenario() -> None:
        async with working(repeat) as (engine, _):
            await engine.run_task("repeat", 900_000)
            told = await engine.next(TaskOutcome)
            assert told.result is not None
            assert len(told.result.data) == 900_002
            await engine.run_task("repeat", 990_000)
            failed = await engine.next(AttemptOutcome, lambda outcome: outcome.outcome == "failed")
            assert failed.failure is not None
            assert failed.failure.name == "PayloadTooLarge"
            assert "set PERDURE_URL" in failed.failure.message

    asyncio.run(scenario())


async def failure_of(engine: Engine, name: str, args: Payload) -> Failure:
    run = RunTask(
        task_id="t", attempt_id="a", attempt=1, name=name, args=args, options=TaskOptions(),
        answer_to=[Address(topics.TASK_ENGINE, "t")],
    )  # fmt: skip
    await engine.send(topics.task_run(name), run, key="t")
    failed = await engine.next(AttemptOutcome, lambda outcome: outcome.task_id == "t")
    assert failed.failure is not None
    return failed.failure


MODES = pytest.mark.parametrize("name", ["sized", "sized_beside", "sized_apart"])


@MODES
def test_arguments_that_another_worker_may_have_a_way_to_are_left_to_it(name: str) -> None:
    async def scenario() -> None:
        async with working(sized, sized_beside, sized_apart) as (engine, _):
            failure = await failure_of(engine, name, reference("json", made_of("b", b"[]")))
            assert failure.retryable
            assert "stored beside the messages" in failure.message
            assert "set PERDURE_URL" in failure.message

    asyncio.run(scenario())


class Damaged:
    """A store that has lost one blob and mixed up another."""

    async def put(self, blob: Blob, data: bytes) -> None:
        raise AssertionError("nothing is large here")

    async def get(self, blob: Blob) -> bytes | None:
        return None if blob.id == "gone" else b"what else"


@MODES
@pytest.mark.parametrize(("id", "why"), [("gone", "no longer stored"), ("mixed-up", "are damaged")])
def test_arguments_that_nobody_can_read_fail_for_good(name: str, id: str, why: str) -> None:
    async def scenario() -> None:
        async with working(sized, sized_beside, sized_apart, blobs=Damaged()) as (engine, _):
            failure = await failure_of(engine, name, reference("json", made_of(id, b"[]")))
            assert not failure.retryable
            assert why in failure.message

    asyncio.run(scenario())
