"""What the first engine's own tests fixed, as acceptance tests: each runs a real workflow through a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from perdure import (
    Client,
    Deferred,
    DefinitionError,
    Retry,
    RetryLater,
    TaskCanceled,
    TaskFailed,
    TaskTimedOut,
    all_of,
    any_of,
    branch,
    current_task,
    inline,
    task,
    workflow,
)
from tests.sdk.semantics.world import described

pytestmark = pytest.mark.asyncio


@task
async def join(left: str, right: str) -> str:
    return left + right


@task
async def reverse(text: str) -> str:
    return text[::-1]


@task
async def never() -> str:
    await asyncio.Event().wait()
    return "never"


@workflow
async def nothing() -> None:
    pass


@workflow
async def three_in_a_row() -> str:
    text = await join("", "1")
    text = await join(text, "2")
    return await join(text, "3")


@workflow
async def one_ahead_two_after() -> str:
    ahead = reverse("ab")
    text = await join("", "2")
    text = await join(text, "3")
    return await join(text, await ahead)


@workflow
async def branch_of(tasks: int) -> str:
    async def work() -> str:
        text = "ab"
        for _ in range(tasks):
            text = await reverse(text)
        return text

    beside = branch(work())
    text = await join("", "2")
    text = await join(text, "3")
    return await join(text, await beside)


@workflow
async def first_of_three() -> str:
    return await (reverse("ab") | never() | never())


@workflow
async def both_or_third() -> list[str]:
    both = reverse("ab") & reverse("cd")
    return list(await (both | never()))


@workflow
async def third_or_both() -> str | tuple[str, str]:
    first = (reverse("ab") & never()) | reverse("ef")
    return await first


@workflow
async def first_of_list() -> str:
    return await any_of([never(), reverse("cd"), never()])


@workflow
async def all_of_three() -> list[str]:
    return list(await (reverse("ab") & reverse("cd") & reverse("ef")))


@workflow
async def all_of_list(count: int) -> list[str]:
    return await all_of([reverse(f"{n},") for n in range(count)])


@workflow
async def with_inline() -> str:
    stamp = inline(lambda: "inline")
    return await join(stamp, "!")


@workflow
async def dispatching_inline() -> str:
    started: list[Deferred[str]] = []

    def dispatch() -> str:
        started.append(reverse("ab"))
        return "dispatched"

    text = inline(dispatch)
    return await join(text, "!")


@workflow
async def waiting_inline() -> str:
    try:
        inline(lambda: reverse("ab"))
    except DefinitionError as error:
        raise error
    return "waited"


@workflow
async def child_at_once(text: str) -> str:
    return await join(await reverse(text), "c")


@workflow
async def parent(text: str) -> str:
    return await join(await child_at_once(text), "p")


@workflow
async def parent_beside(text: str) -> str:
    child = child_at_once(text)
    own = await reverse(text)
    return await join(own, await child)


@workflow
async def grandparent(text: str) -> str:
    return await join(await parent(text), "g")


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    tasks = (join, reverse, never, flaky, refusing, contextual, slow)
    flows = (nothing, three_in_a_row, one_ahead_two_after, branch_of, first_of_three, both_or_third, third_or_both)
    lists = (first_of_list, all_of_three, all_of_list, with_inline, dispatching_inline, waiting_inline)
    families = (child_at_once, parent, parent_beside, grandparent)
    async with asyncio.timeout(60), Client.embedded(*tasks, *flows, *lists, *families) as opened:
        yield opened


async def test_an_empty_workflow_completes(client: Client) -> None:
    run = await client.start(nothing)
    await run.result()
    assert [type(record.event).__name__ for record in await run.history()] == ["Started", "TurnCommitted", "RunEnded"]


async def test_three_tasks_in_a_row(client: Client) -> None:
    assert await client.execute(three_in_a_row) == "123"


async def test_a_task_dispatched_first_and_awaited_last(client: Client) -> None:
    assert await client.execute(one_ahead_two_after) == "23ba"


@pytest.mark.parametrize(("tasks", "result"), [(1, "23ba"), (2, "23ab")])
async def test_a_branch_beside_the_main_line(client: Client, tasks: int, result: str) -> None:
    assert await client.execute(branch_of, tasks) == result


async def test_the_first_of_three_ends_the_wait(client: Client) -> None:
    assert await client.execute(first_of_three) == "ba"


async def test_both_of_a_pair_or_a_third(client: Client) -> None:
    assert await client.execute(both_or_third) == ["ba", "dc"]
    assert await client.execute(third_or_both) == "fe"


async def test_the_first_of_a_list(client: Client) -> None:
    assert await client.execute(first_of_list) == "dc"


async def test_all_of_three_in_order(client: Client) -> None:
    assert await client.execute(all_of_three) == ["ba", "dc", "fe"]


@pytest.mark.parametrize("count", [0, 2, 100])
async def test_all_of_a_list_in_order(client: Client, count: int) -> None:
    assert await client.execute(all_of_list, count) == [f"{n},"[::-1] for n in range(count)]


async def test_an_inline_function_gives_its_value(client: Client) -> None:
    assert await client.execute(with_inline) == "inline!"


async def test_an_inline_function_may_dispatch_without_waiting(client: Client) -> None:
    assert await client.execute(dispatching_inline) == "dispatched!"


async def test_an_inline_function_may_not_wait(client: Client) -> None:
    run = await client.start(waiting_inline)
    found = await described(run, "stuck")
    assert "inline(fn) runs a plain function at once" in found.last_error


async def test_a_child_awaited_at_once_and_one_beside(client: Client) -> None:
    assert await client.execute(parent, "ab") == "bacp"
    assert await client.execute(parent_beside, "ab") == "babac"


async def test_children_of_children(client: Client) -> None:
    assert await client.execute(grandparent, "ab") == "bacpg"


# --- tasks ----------------------------------------------------------------------------------------------


@task(retry=Retry(attempts=3, initial=0.01, jitter=0))
async def flaky(fails: int) -> int:
    if current_task().attempt <= fails:
        raise ConnectionError("not yet")
    return current_task().attempt


@task(retry=Retry(attempts=3, initial=60))
async def refusing(delay: float) -> int:
    if current_task().attempt == 1:
        raise RetryLater(delay)
    return current_task().attempt


@task
async def contextual() -> list[str | int]:
    context = current_task()
    return [context.id, context.name, context.attempt]


@task(timeout=0.05)
async def slow() -> None:
    await asyncio.Event().wait()


async def test_a_task_is_dispatched_by_a_client(client: Client) -> None:
    handle = await client.start_task(reverse, "ab")
    assert await handle.result() == "ba"


async def test_a_task_is_tried_again_after_a_delay_or_at_once_or_not_at_all(client: Client) -> None:
    assert await client.run(flaky, 2) == 3
    assert await client.run(refusing, 0) == 2
    with pytest.raises(TaskFailed, match="ConnectionError: not yet"):
        await client.run(flaky, 3)
    with pytest.raises(TaskFailed):
        await client.run(flaky.options(retry=Retry(attempts=1)), 1)


async def test_a_person_tries_a_failed_task_again(client: Client) -> None:
    handle = await client.start_task(flaky.options(retry=Retry(attempts=1)), 1)
    with pytest.raises(TaskFailed):
        await handle.result()
    await handle.retry()
    assert await handle.result() == 2


async def test_a_task_is_canceled(client: Client) -> None:
    handle = await client.start_task(never)
    await handle.cancel("nobody wants it")
    with pytest.raises(TaskCanceled):
        await handle.result()


async def test_a_task_knows_who_it_is(client: Client) -> None:
    handle = await client.start_task(contextual)
    assert await handle.result() == [handle.id, "contextual", 1]


async def test_an_attempt_ends_by_its_time_out(client: Client) -> None:
    with pytest.raises(TaskTimedOut):
        await client.run(slow)
