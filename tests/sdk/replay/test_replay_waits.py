"""What a run says it waits for, against an oracle that is woken by every event.

An engine that starts turns only when the report holds must never leave out a turn in which the code would have done
something; and it must leave out those that the group operators are there for.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import all_of, any_of, completed, timer, workflow
from perdure._replay import compat, portions
from perdure._replay.code import Turn
from perdure._replay.portions import AT_ONCE
from perdure_core.workflow_engine.waits import Waits
from perdure_schemas.events import CommandSettled, Recorded
from tests.sdk.replay import shapes, world
from tests.sdk.replay.shaping import doubled, echo

SEEDS = range(12)


class Engine:
    """The engine's own count of what is waited for."""

    def __init__(self) -> None:
        self._waits = Waits()
        self._open: set[str] = set()

    def report(self, turn: Turn) -> None:
        for command in turn.commands:
            if command.kind == "cancel":
                self._open.discard(command.target)
            else:
                self._open.add(command.id)
        listed = {id for group in turn.waits_for.groups for id in group.ids}
        assert listed <= self._open, "waits for what has ended"
        self._waits = self._waits.replace(turn.waits_for, {})
        if turn.waits_for != AT_ONCE:
            assert not self._waits.satisfied, "a report that holds at once is a turn without end"

    def wakes(self, event: object) -> bool:
        if not isinstance(event, CommandSettled):
            return True  # signals, updates and cancels always do
        self._open.discard(event.command_id)
        self._waits.settle(event.command_id, event.outcome)
        return self._waits.satisfied


def turns_of(workflow: Any, story: world.Story) -> int:
    """Feed the story to a run in the turns that the engine would start. Returns how many.

    Fails if one is left out in which the oracle did something.
    """
    live, engine = world.instance_of(workflow), Engine()
    transcript, turns, unfed = world.Transcript(), 0, list[Recorded]()
    for event, oracle in zip(story.events, story.turns, strict=True):
        unfed.append(event)
        if not engine.wakes(event.event):
            assert not did_something(oracle), f"a wake-up was missed at event {event.seq}: {event.event}"
            continue
        turn = live.turn(unfed, base=event.seq, generation=0)
        turns, unfed = turns + 1, []
        transcript.add(turn)
        engine.report(turn)
        while turn.waits_for == AT_ONCE:
            turn = live.turn([], base=event.seq, generation=0)
            transcript.add(turn)
            engine.report(turn)
    live.evict()
    assert transcript == story.transcript
    return turns


def did_something(turn: Turn) -> bool:
    return bool(turn.commands) or turn.completion is not None


@pytest.mark.parametrize("name", shapes.EVERY)
def test_no_wake_up_is_missed(name: str) -> None:
    shape = shapes.EVERY[name]
    for seed in SEEDS:
        turns_of(shape.workflow, world.play(shape.workflow, seed, **shape.world))


@pytest.mark.parametrize("name", shapes.EVERY)
def test_no_wake_up_is_missed_when_turns_come_in_portions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shapes.EVERY[name]
    stories = [world.play(shape.workflow, seed, **shape.world) for seed in range(4)]
    monkeypatch.setattr(portions, "PORTION_BYTES_MAX", 600)  # two commands
    for story in stories:
        turns_of(shape.workflow, story)


@workflow
async def all_of_many() -> list[int]:
    return await all_of([echo(n) for n in range(100)])


@workflow
async def gathers_many() -> list[int]:
    return await asyncio.gather(*(echo(n) for n in range(100)))


@workflow
async def waits_for_many() -> int:
    done, _ = await asyncio.wait([echo(n) for n in range(100)])
    return len(done)


@workflow
async def all_under_time_limit() -> list[int]:
    return await asyncio.wait_for(all_of([echo(n) for n in range(100)]), 10_000)


@workflow
async def all_but_one_fails() -> int:
    results = await asyncio.gather(*(echo(n) for n in range(50)), echo(1_000), return_exceptions=True)
    return len(results)


@workflow
async def all_or_any() -> object:
    return await any_of(all_of([echo(n) for n in range(50)]), all_of([echo(n) for n in range(50, 100)]))


@workflow
async def nested_in_branches() -> object:
    async def part(first: int) -> list[int]:
        return await all_of([echo(n) for n in range(first, first + 30)])

    return await asyncio.gather(part(0), part(100))


@pytest.mark.parametrize(
    ("code", "turns_max"),
    [
        (all_of_many, 2),
        (gathers_many, 2),
        (waits_for_many, 2),
        (all_under_time_limit, 2),
        (all_but_one_fails, 2),
        (all_or_any, 2),
        (nested_in_branches, 3),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_waiting_for_many_is_one_turn(code: Any, turns_max: int) -> None:
    for seed in SEEDS:
        assert turns_of(code, world.play(code, seed)) <= turns_max


@workflow
async def fails_early() -> str:
    try:
        await all_of([*(echo(n) for n in range(30)), echo(1_000)])
    except Exception:
        return "failed"
    return ""


def test_a_failure_wakes_at_once() -> None:
    """`all_or_fail`: waiting for all would delay it until the slowest has ended."""
    for seed in SEEDS:
        story = world.play(fails_early, seed)
        assert turns_of(fails_early, story) == 2


@workflow
async def goes_on_without_the_losers() -> int:
    losers = [echo(n) for n in range(20)]
    await any_of(*losers)
    await timer(60)
    return await doubled(1)


def test_what_lost_an_any_of_is_waited_for_no_more() -> None:
    for seed in SEEDS:
        story = world.play(goes_on_without_the_losers, seed)
        turns = [turn for turn in story.turns if turn.completion is None]
        assert sum(len(group.ids) for group in turns[-1].waits_for.groups) == 1, "the last task alone"
        assert turns_of(goes_on_without_the_losers, story) <= 5


def test_a_report_that_forgets_a_leaf_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the oracle catches it."""
    monkeypatch.setattr(compat, "callbacks", lambda future: [])
    with pytest.raises(AssertionError, match="a wake-up was missed"):
        turns_of(all_of_many, world.play(all_of_many, 1))


def test_an_unknown_asyncio_makes_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names inside asyncio cost turns, never a wake-up."""
    monkeypatch.setattr(compat, "closure", lambda callback: ("_wait.<locals>._renamed", {}))
    story = world.play(waits_for_many, 1)
    assert turns_of(waits_for_many, story) == len(story.events)


@workflow
async def many_at_a_time() -> int:
    ended = 0
    async for each in completed([echo(n) for n in range(300)]):
        await each
        ended += 1
    await asyncio.gather(*(doubled(n) for n in range(200)))
    return ended


def test_reports_do_not_repeat_what_is_known() -> None:
    """Each turn of a fan-out lists only what is new: ids listed in all reports are O(commands)."""
    story = world.play(many_at_a_time, 1)
    listed = sum(len(group.ids) for turn in story.turns for group in turn.waits_for.groups)
    assert listed < 20 * len(story.transcript.lines)


def test_a_group_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear by counting: what is looked at for a report grows with its members, not with their square."""
    looked = 0
    real = compat.callbacks

    def counting(future: asyncio.Future[Any]) -> list[tuple[Any, Any]]:
        nonlocal looked
        looked += 1
        return real(future)

    monkeypatch.setattr(compat, "callbacks", counting)
    for code in (all_of_many, gathers_many, waits_for_many):
        looked = 0
        live = world.instance_of(code)
        turn = live.turn([world.recorded(1, world.started())], base=1, generation=0)
        live.evict()
        assert len(turn.commands) == 100
        assert looked <= 3 * 100
