"""Several Workflows of one workflow: one has it."""

from __future__ import annotations

import pytest

from perdure_operator.objects import Object
from tests.operator.world import CONNECTION, World

pytestmark = pytest.mark.asyncio

OLDER: Object = {"workflow": "order", "image": "shop:1"}
YOUNGER: Object = {"workflow": "order", "image": "shop:2", "defaults": {"retentionSeconds": 60}}
TAKEN = ("False", "WorkflowTaken")
HAS_IT = ("True", "Accepted")


def two() -> World:
    """Of which the younger has the name that comes first."""
    world = World()
    world.cluster.declare("Workflow", "b", OLDER)
    world.cluster.declare("Workflow", "a", YOUNGER)
    return world


async def rounds(world: World, names: str, number: int) -> None:
    for _ in range(number):
        for name in names:
            await world.rounds("Workflow", name, 1)


@pytest.mark.parametrize("names", ["ab", "ba"])
async def test_the_older_one_has_the_workflow_whoever_is_looked_at_first(names: str) -> None:
    world = two()
    await rounds(world, names, 3)
    assert world.condition("Workflow", "b", "Accepted") == HAS_IT
    assert world.condition("Workflow", "a", "Accepted") == TAKEN
    (accepted,) = world.status("Workflow", "a")["conditions"]
    assert "Workflow 'b' in namespace 'shop'" in accepted["message"]
    assert set(world.replicas()) == {world.perdure.routes["order"].current}
    world.cluster.writes.clear()
    world.restart()
    await rounds(world, names, 3)
    assert world.cluster.writes == []


async def test_the_younger_one_takes_over_when_the_older_is_gone() -> None:
    world = two()
    await rounds(world, "ab", 3)
    world.cluster.remove("Workflow", "b")
    await rounds(world, "ab", 3)
    assert world.condition("Workflow", "a", "Accepted") == HAS_IT
    assert world.perdure.routes["order"].current == world.status("Workflow", "a")["currentBuild"]


async def test_an_older_one_that_comes_from_another_api_has_it() -> None:
    world = two()
    world.cluster.declare("Connection", "second", {**CONNECTION, "namespace": "other"})
    world.cluster.declare("Workflow", "b", {**OLDER, "connection": "second"})
    await rounds(world, "ab", 3)
    assert world.condition("Workflow", "a", "Accepted") == HAS_IT
    world.cluster.declare("Workflow", "b", OLDER)
    await rounds(world, "ab", 3)
    assert world.condition("Workflow", "a", "Accepted") == TAKEN
    assert world.perdure.routes["order"].current == world.status("Workflow", "b")["currentBuild"]


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ({"api": {**CONNECTION["api"], "url": "http://api:8080/"}}, TAKEN),
        ({"api": {**CONNECTION["api"], "url": "http://other:8080"}}, HAS_IT),
        ({"namespace": "other"}, HAS_IT),
        ({"api": {**CONNECTION["api"], "tokenSecret": {"name": "none", "key": "token"}}}, HAS_IT),
    ],
)
async def test_it_is_one_workflow_where_both_reach_the_same_namespace_of_one_api(
    connection: Object, expected: tuple[str, str]
) -> None:
    world = World()
    world.cluster.declare("Connection", "second", {**CONNECTION, **connection})
    world.cluster.declare("Workflow", "b", {**OLDER, "connection": "second"})
    world.cluster.declare("Workflow", "a", YOUNGER)
    await rounds(world, "ab", 2)
    assert world.condition("Workflow", "a", "Accepted") == expected


async def test_one_list_is_enough_for_all_until_one_changes_its_claim() -> None:
    world = World()
    for name in "abcd":
        world.cluster.declare("Workflow", name, {**OLDER, "workflow": name})
    world.cluster.reads.clear()
    await rounds(world, "abcd", 3)
    assert world.cluster.reads.count("list Workflow") == 1
    world.cluster.declare("Workflow", "a", {**OLDER, "workflow": "a", "image": "shop:3"})
    await rounds(world, "abcd", 3)
    assert world.cluster.reads.count("list Workflow") == 1
    world.cluster.declare("Connection", "second", CONNECTION)
    world.cluster.declare("Workflow", "a", {**OLDER, "workflow": "a", "connection": "second"})
    await rounds(world, "abcd", 3)
    assert world.cluster.reads.count("list Workflow") == 2
