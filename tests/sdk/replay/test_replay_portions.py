"""A turn that issues more than one message bears comes in portions, live and in replay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure import all_of, task, workflow
from perdure._replay.code import Turn
from perdure._replay.instance import Instance
from perdure._replay.portions import AT_ONCE, PORTION_BYTES_MAX
from perdure_schemas.events import Recorded, TurnCommitted
from tests.sdk.replay.world import committed, instance_of, recorded, started

WIDTH = 4_000


@task
async def number(value: int) -> int:
    return value


@workflow
async def wide(width: int) -> int:
    return sum(await all_of(*[number(value) for value in range(width)]))


@workflow
async def leaves(width: int) -> str:
    for value in range(width):
        number(value)
    return "x" * PORTION_BYTES_MAX


def turns_of(live: Instance, history: list[Recorded]) -> list[Turn]:
    """Answers from the present base on, until one is no portion."""
    turns: list[Turn] = []
    while not turns or turns[-1].waits_for == AT_ONCE:
        turns.append(live.turn(history[-1:], base=len(history), generation=0))
        history.append(committed(turns[-1], len(history)))
    return turns


def positions(turns: Sequence[Turn]) -> list[str]:
    return [command.position for turn in turns for command in turn.commands]


def test_the_portions_are_what_one_turn_would_have_been() -> None:
    turns = turns_of(instance_of(wide), [recorded(1, started(WIDTH))])
    assert len(turns) > 1
    assert positions(turns) == [str(value) for value in range(WIDTH)]
    (group,) = turns[-1].waits_for.groups
    assert group.ids == [command.id for turn in turns for command in turn.commands]


@pytest.mark.parametrize("known", [1, 2, 3])
def test_a_run_rebuilt_between_portions_goes_on_with_the_next(known: int) -> None:
    whole = [recorded(1, started(WIDTH))]
    expected = positions(turns_of(instance_of(wide), whole))
    history = whole[: 1 + known]
    rebuilt = instance_of(wide)
    rebuilt.replay(history)
    before = [record.event for record in history if isinstance(record.event, TurnCommitted)]
    after = turns_of(rebuilt, history)
    assert all(turn.stoppage is None for turn in after)
    assert [command.position for turn in before for command in turn.commands] + positions(after) == expected


def test_a_large_end_comes_alone() -> None:
    turns = turns_of(instance_of(leaves), [recorded(1, started(WIDTH))])
    assert positions(turns) == [str(value) for value in range(WIDTH)]
    assert [turn.completion is not None for turn in turns] == [False] * (len(turns) - 1) + [True]
    assert not turns[-1].commands
