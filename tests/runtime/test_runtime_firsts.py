"""Which messages of a shared topic may have been somebody else's before."""

from __future__ import annotations

from perdure_runtime.adapters.pulsar.begun import SUSPECT_MS, Firsts, Place

OLD = SUSPECT_MS + 1
SOON = SUSPECT_MS / 1000 / 2


def place(entry: int) -> Place:
    return (7, entry, -1)


def test_what_is_young_is_nobody_else_s() -> None:
    assert not Firsts().suspect(place(3), SUSPECT_MS, 1.0)


def test_what_is_old_when_it_comes_may_be_somebody_else_s() -> None:
    assert Firsts().suspect(place(3), OLD, 1.0)


def test_a_crowd_that_had_to_wait_is_not_suspect_behind_one_that_came_in_time() -> None:
    firsts = Firsts()
    assert not firsts.suspect(place(1), 1, 1.0)
    assert [firsts.suspect(place(n), OLD, 1.0 + n * SOON) for n in range(2, 50)] == [False] * 48


def test_several_ways_from_one_topic_may_bring_neighbours_out_of_order() -> None:
    firsts = Firsts()
    assert not firsts.suspect(place(1), 1, 1.0)
    assert [firsts.suspect(place(n), OLD, 1.001) for n in (3, 2, 5, 4)] == [False] * 4


def test_what_comes_again_lies_before_all_that_came_just_now() -> None:
    firsts = Firsts()
    assert not firsts.suspect(place(10), 1, 1.0)
    assert firsts.suspect(place(9), OLD, 1.001)


def test_what_was_suspect_clears_nobody() -> None:
    """The dead had several: they come one behind the other."""
    firsts = Firsts()
    assert [firsts.suspect(place(n), OLD, 1.0) for n in (3, 4, 5)] == [True] * 3


def test_after_a_pause_nobody_is_cleared() -> None:
    """Another may have got it in the meantime, and died."""
    firsts = Firsts()
    assert not firsts.suspect(place(1), 1, 1.0)
    assert firsts.suspect(place(2), OLD, 1.0 + 3 * SOON)
