"""Parents that go back, and their children: one that is started anew under its own id follows the one before it."""

from __future__ import annotations

import asyncio

import pytest

from perdure import ChildFailed, Client, Refused, RunFailed, RunNotFound, channel, task, workflow
from tests.sdk.semantics.world import Gate, World

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
SEEN: list[str] = []
VAN: list[str] = []


@task
async def noted(text: str) -> str:
    SEEN.append(text)
    return text


@task
async def tidied() -> None:
    await GATES["tidied"].passed()
    SEEN.append("tidied")


@workflow
async def guest() -> str:
    await noted("came")
    try:
        return str(await channel("go").receive())
    except asyncio.CancelledError:
        await tidied()
        raise


@workflow(close_policy="abandon")
async def lodger() -> str:
    await noted("came")
    return str(await channel("go").receive())


@workflow
async def host() -> str:
    await noted("opened")
    return await guest.options(id="guest")()


@workflow
async def landlord() -> str:
    await noted("opened")
    return await lodger.options(id="lodger")()


@task
async def shipped() -> str:
    if not VAN:
        raise ConnectionError("no van")
    SEEN.append("shipped")
    return "shipped"


@workflow
async def shipping() -> str:
    return await shipped()


@workflow
async def ordering() -> str:
    try:
        return await shipping.options(id="shipping")()
    except ChildFailed:
        await tidied()
        raise


async def _until(client: Client, workflow_id: str, waits_for: str) -> None:
    while await _waits_for(client, workflow_id) != waits_for:  # noqa: ASYNC110  what is looked at tells nobody
        await asyncio.sleep(0.01)


async def _waits_for(client: Client, workflow_id: str) -> str:
    try:
        return (await client.handle(workflow_id).describe()).waits_for
    except RunNotFound:
        return ""


@pytest.mark.parametrize("resets", [1, 2])
async def test_a_child_that_is_started_anew_waits_until_the_one_before_it_has_tidied_up(
    resets: int,
) -> None:
    SEEN.clear()
    gate = GATES["tidied"] = Gate()
    async with World(noted, tidied, guest, host) as world:
        run = await world.client.start(host, id="host")
        await _until(world.client, "guest", "signal go")
        for _ in range(resets):
            await run.reset("0", anyway=True)
            await _until(world.client, "host", "child guest")
        await _until(world.client, "guest", "task tidied")
        assert [*["opened", "came"], *["opened"] * resets] == SEEN
        gate.open()
        await _until(world.client, "guest", "signal go")
        await world.client.handle("guest").signal("go", "gone")
        assert await run.result() == "gone"
        await world.quiet()
        assert [*["opened", "came"], *["opened"] * resets, "tidied", "came"] == SEEN


async def test_a_child_that_was_to_outlive_its_parent_keeps_its_id() -> None:
    """Nobody has told it to end: its id might never be free."""
    SEEN.clear()
    async with World(noted, lodger, landlord) as world:
        run = await world.client.start(landlord, id="landlord")
        await _until(world.client, "lodger", "signal go")
        await run.reset("0", anyway=True)
        with pytest.raises(RunFailed, match="AlreadyStarted"):
            await run.result()
        await world.client.handle("lodger").signal("go", "gone")


async def test_a_reset_parent_does_not_wait_for_the_child_of_another() -> None:
    SEEN.clear()
    gate = GATES["tidied"] = Gate()
    async with World(noted, tidied, guest, host) as world:
        run = await world.client.start(host, id="host")
        await _until(world.client, "guest", "signal go")
        other = await world.client.start(host, id="other")
        with pytest.raises(RunFailed, match="AlreadyStarted"):
            await other.result()
        await other.reset("0", anyway=True)
        with pytest.raises(RunFailed, match="AlreadyStarted"):
            await other.result()
        gate.open()
        await world.client.handle("guest").signal("go", "gone")
        assert await run.result() == "gone"


async def test_a_child_that_is_resumed_while_its_parent_makes_up_for_its_failure_goes_on_alone() -> None:
    """Before, the parent went back to before the failure, while what made up for it was done all the same."""
    SEEN.clear()
    VAN.clear()
    gate = GATES["tidied"] = Gate()
    async with World(shipped, tidied, shipping, ordering) as world:
        run = await world.client.start(ordering, id="ordering")
        await gate.reached()
        VAN.append("there")
        await world.client.handle("shipping").resume()
        assert await world.client.handle("shipping").result() == "shipped"
        gate.open()
        with pytest.raises(RunFailed, match="no van"):
            await run.result()
        assert (await run.describe()).generation == 0
        assert SEEN == ["shipped", "tidied"]
        with pytest.raises(Refused, match="completed tidied"):
            await run.resume()
        await run.resume(anyway=True)
        assert await run.result() == "shipped"
