"""How a run ends with a group of errors, as `asyncio.TaskGroup` raises it."""

from __future__ import annotations

import asyncio

import pytest

from perdure import CommandFailed, WorkflowError, workflow
from perdure.failures import GROUP_SHOWN_MAX, failure_from_exception
from tests.sdk.replay.live import Live
from tests.sdk.replay.shaping import doubled, echo


@workflow
async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(doubled(1))
        group.create_task(doubled(2))


def test_a_group_of_nothing_but_failed_commands_fails_the_run_with_the_first_of_them() -> None:
    live = Live(grouped)
    live.begin()
    completion = live.fail("1.0", "'neg'").completion
    assert completion is not None
    assert (completion.status, completion.command_id) == ("failed", live.id_at("1.0"))
    assert completion.failure is not None
    assert completion.failure.name == "ExceptionGroup"
    assert completion.failure.message == (
        "unhandled errors in a TaskGroup (1 sub-exception): TaskFailed: task echo failed: KeyError: 'neg'"
    )
    assert completion.failure.cause is not None
    assert (completion.failure.cause.name, completion.failure.cause.stack != "") == ("TaskFailed", True)


@workflow
async def cleans_up_in_an_inner_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_inner())
        group.create_task(doubled(2))


async def _inner() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(doubled(1))
        group.create_task(_cleans_up())


async def _cleans_up() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await echo(3)


def test_of_nested_groups_the_failure_that_came_first_is_the_one_to_go_back_to() -> None:
    live = Live(cleans_up_in_an_inner_group)
    positions = {c.position for c in live.begin().commands}
    assert positions == {"0.0.0", "0.1.0", "1.0"}
    (cleanup,) = [c.position for c in live.fail("0.0.0", "first").commands if c.kind == "task"]
    live.fail("1.0", "second")
    completion = live.complete(cleanup).completion
    assert completion is not None
    assert completion.failure is not None
    told = completion.failure.message
    assert told.index("second") < told.index("first")
    assert (completion.status, completion.command_id) == ("failed", live.id_at("0.0.0"))


@workflow
async def fails_by_its_own_words() -> None:
    async def refuses() -> None:
        raise WorkflowError("no")

    async with asyncio.TaskGroup() as group:
        group.create_task(refuses())


def test_a_group_of_the_workflow_s_own_errors_fails_the_run_too() -> None:
    completion = Live(fails_by_its_own_words).begin().completion
    assert completion is not None
    assert (completion.status, completion.command_id) == ("failed", "")


@workflow
async def mixed() -> None:
    async def mistaken() -> None:
        try:
            await echo(2)
        except CommandFailed as error:
            raise ValueError("domain error") from error

    async with asyncio.TaskGroup() as group:
        group.create_task(mistaken())
        group.create_task(doubled(1))


def test_a_group_with_a_bug_in_it_makes_the_run_stuck_and_names_the_bug() -> None:
    live = Live(mixed)
    live.begin()
    stoppage = live.fail("0.0", "'neg'").stoppage
    assert stoppage is not None
    assert stoppage.kind == "bug"
    assert stoppage.failure.message == "unhandled errors in a TaskGroup (1 sub-exception): ValueError: domain error"
    assert stoppage.failure.cause is not None
    assert "mistaken" in stoppage.failure.cause.stack


@pytest.mark.parametrize(("count", "more"), [(GROUP_SHOWN_MAX, ""), (GROUP_SHOWN_MAX + 2, "; and 2 more")])
def test_a_message_names_a_few_errors_of_a_group(count: int, more: str) -> None:
    group = ExceptionGroup("g", [ValueError(n) for n in range(count - 1)] + [ExceptionGroup("inner", [KeyError()])])
    message = failure_from_exception(group).message
    shown = [f"ValueError: {n}" for n in range(count - 1)] + ["KeyError"]
    assert message == f"g ({count} sub-exceptions): " + "; ".join(shown[:GROUP_SHOWN_MAX]) + more
