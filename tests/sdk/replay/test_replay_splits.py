"""However the events of a run are cut into turns, and wherever it is rebuilt, it issues the same commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure._replay import instance
from perdure_schemas.events import TurnCommitted
from tests.sdk.replay import shapes, world

SHAPES = sorted(shapes.EVERY)


def story_of(name: str, seed: int) -> tuple[Any, world.Story]:
    shape = shapes.EVERY[name]
    return shape.workflow, world.play(shape.workflow, seed, **shape.world)


def ends(data: st.DataObject, count: int) -> list[int]:
    """Where turns end: rising indexes, the last one being the number of events."""
    inner = data.draw(st.sets(st.integers(1, count), max_size=count), label="turns end after")
    return sorted({*inner, count})


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1_000), data=st.data())
def test_any_split_into_turns_issues_the_same_commands(name: str, seed: int, data: st.DataObject) -> None:
    workflow, story = story_of(name, seed)
    cut = world.cut(workflow, story.events, ends(data, len(story.events)))
    assert cut.transcript == story.transcript


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1_000), data=st.data())
def test_rebuilt_from_any_point_it_goes_on_alike(name: str, seed: int, data: st.DataObject) -> None:
    """The history up to a turn is replayed; what lies beyond comes live, in other turns than before."""
    workflow, story = story_of(name, seed)
    cut = world.cut(workflow, story.events, ends(data, len(story.events)))
    turns = [index for index, record in enumerate(cut.history) if isinstance(record.event, TurnCommitted)]
    at = data.draw(st.sampled_from(turns[:-1]) if len(turns) > 1 else st.just(-1), label="rebuilt after")
    known = cut.history[: at + 1 + data.draw(st.integers(0, 1), label="events known beyond it")]
    transcript = world.Transcript()
    for record in known:
        if isinstance(record.event, TurnCommitted):
            transcript.lines += map(world.Line.of, record.event.commands)
    rest = [record for record in cut.history[len(known) :] if not isinstance(record.event, TurnCommitted)]
    turns_to_come = [*batches(data, rest)] or [[]]
    rebuilt = world.instance_of(workflow)
    rebuilt.replay(known)
    for batch in turns_to_come:
        turn = rebuilt.turn(batch, base=(batch or known)[-1].seq, generation=0)
        transcript.add(turn)
        if turn.completion is not None:
            break
    rebuilt.evict()
    assert transcript == cut.transcript


def batches(data: st.DataObject, records: list[Any]) -> Iterator[list[Any]]:
    while records:
        size = data.draw(st.integers(1, len(records)))
        yield records[:size]
        records = records[size:]


def test_a_loop_that_drains_once_per_turn_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: applying a whole turn before running any code gives another answer."""

    def feed_all(self: instance.Instance, queue: list[Any], base: int) -> list[Any]:
        for record in queue:
            self.loop.now_ms = record.at
            self._apply(record)
        self.loop.drain()
        self.ending.conclude(self._main)
        return []

    workflow, story = story_of("wait_first_completed", 1)
    monkeypatch.setattr(instance.Instance, "_feed_until", feed_all)
    one_by_one = world.cut(workflow, story.events, range(1, len(story.events) + 1))
    assert one_by_one.transcript == story.transcript
    started, rest = 1, len(story.events)
    at_once = world.cut(workflow, story.events, [started, 14, rest])
    assert at_once.transcript != story.transcript
