"""How many pods there should be, and by which steps."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from perdure_operator.facts import BuildPods, Pod, Work
from perdure_operator.objects import LOWEST_COST
from perdure_operator.resources import Scaling
from perdure_operator.scaling import (
    Cheapen,
    Drain,
    Lower,
    Raise,
    Resume,
    Sample,
    Spare,
    Window,
    bearable,
    needed,
    noted,
    steps,
)

BUSY = Work(receiving=True, in_flight=2, slots=2)
IDLE = Work(receiving=True, in_flight=0, slots=2)
STOPPING = Work(receiving=False, in_flight=1, slots=2)
DRAINED = Work(receiving=False, in_flight=0, slots=2)


def pod(name: str, work: Work | None = IDLE, *, ready: bool = True, cost: int = 0, started: bool = True) -> Pod:
    return Pod(name=name, ip=name, ready=ready and started, started=started, cost=cost, work=work)


def build(*pods: Pod, replicas: int | None = None, settled: bool = True, refused: bool = False) -> BuildPods:
    number = len(pods) if replicas is None else replicas
    return BuildPods(
        build="b", name="pool-b", replicas=number, slots=2, settled=settled, refused=refused, version="1", pods=pods
    )


@pytest.mark.parametrize(
    ("waiting", "in_flight", "expected"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (8, 0, 1), (9, 0, 2), (4, 5, 2), (80, 0, 6), (10_000, 10_000, 6)],
)
def test_what_runs_or_could_run_fills_the_slots_as_far_as_it_should(
    waiting: int, in_flight: int, expected: int
) -> None:
    assert needed(waiting, in_flight, 10, Scaling(max=6, target_utilization=80)) == expected


def test_the_least_is_there_without_need() -> None:
    assert needed(0, 0, 10, Scaling(min=2)) == 2


def window(*samples: tuple[float, int], cooldown_s: float = 10) -> Window:
    found: Window = ()
    for at, need in samples:
        found = noted(found, Sample(at, need), cooldown_s)
    return found


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], None),
        ([(10, 1)], None),
        ([(0, 1), (9, 1)], None),
        ([(0, 1), (10, 1)], 1),
        ([(0, 5), (1, 1), (10, 1)], 5),
        ([(0, 5), (1, 1), (10.9, 1)], 5),
        ([(0, 5), (1, 1), (11, 1)], 1),
        ([(0, 5), (1, 1), (5, 3), (6, 2), (14, 1)], 3),
        ([(0, 5), (1, 1), (5, 3), (6, 2), (15.5, 1)], 3),
        ([(0, 5), (1, 1), (5, 3), (6, 2), (16, 1)], 2),
    ],
)
def test_down_only_to_the_highest_need_of_a_whole_cool_down(
    samples: list[tuple[float, int]], expected: int | None
) -> None:
    now = samples[-1][0] if samples else 0
    assert bearable(window(*samples), now, 10) == expected


@given(st.lists(st.tuples(st.floats(0.1, 8), st.integers(0, 9)), min_size=1, max_size=30))
def test_a_window_says_what_all_its_samples_would(pauses: list[tuple[float, int]]) -> None:
    cooldown, at = 10.0, 0.0
    all_: list[tuple[float, int]] = []
    found: Window = ()
    for pause, need in pauses:
        at += pause
        all_.append((at, need))
        found = noted(found, Sample(at, need), cooldown)
    told = bearable(found, at, cooldown)
    assert (told is None) == (all_[0][0] > at - cooldown)
    if told is not None:
        first = max(n for n, (when, _) in enumerate(all_) if when <= at - cooldown)
        assert told == max(need for _, need in all_[first:])


def test_up_is_one_step() -> None:
    assert steps(build(pod("a")), 5) == [Raise(5)]


def test_what_is_there_is_left_alone() -> None:
    assert steps(build(pod("a"), pod("b", BUSY)), 2) == []


def test_a_scale_down_goes_step_by_step() -> None:
    busy, idle = pod("a", BUSY), pod("b")
    assert steps(build(busy, idle), 1) == [Drain(idle)]
    stopped = replace(idle, work=DRAINED)
    assert steps(build(busy, stopped), 1) == [], "its probe has not said so"
    unready = replace(stopped, ready=False)
    assert steps(build(busy, unready), 1) == [Cheapen(unready)]
    cheap = replace(unready, cost=LOWEST_COST)
    assert steps(build(busy, cheap), 1) == [Lower(1)]


def test_what_is_busy_ends_first() -> None:
    stopping = pod("a", STOPPING, ready=False)
    assert steps(build(stopping, pod("b", BUSY)), 1) == []


def test_one_that_takes_long_keeps_no_other() -> None:
    gone, stopping, busy = (
        pod("a", DRAINED, ready=False, cost=LOWEST_COST),
        pod("b", STOPPING, ready=False),
        pod("c", BUSY),
    )
    assert steps(build(gone, stopping, busy), 1) == [Lower(2)]


def test_who_is_told_to_stop_first() -> None:
    pods = [pod("busy", BUSY), pod("mute", None), pod("idle"), pod("down", None, started=False)]
    (first, second) = steps(build(*pods), 2)
    assert [type(first), type(second)] == [Cheapen, Drain]
    assert [first.pod.name, second.pod.name] == ["down", "idle"]  # type: ignore[union-attr]


def test_one_that_has_yet_to_start_is_marked_before_any_goes() -> None:
    """A ReplicaSet would delete it instead, and it may have started by then."""
    gone, down = pod("a", DRAINED, ready=False, cost=LOWEST_COST), pod("b", None, started=False)
    assert steps(build(gone, down), 0) == [Cheapen(down)]


def test_when_the_need_is_back_those_chosen_work_again() -> None:
    cheap = pod("a", DRAINED, ready=False, cost=LOWEST_COST)
    assert steps(build(cheap), 1) == [Spare(cheap)], "before it receives, it must cost again"
    spared = replace(cheap, cost=0)
    assert steps(build(spared), 1) == [Resume(spared)]
    assert steps(build(spared), 2) == [Raise(2), Resume(spared)]


def test_those_that_may_be_deleted_already_are_not_told_to_work_again() -> None:
    spared = pod("a", DRAINED, ready=False)
    assert steps(build(spared, pod("b"), replicas=1, settled=False), 1) == []
    assert steps(build(spared, pod("b"), replicas=1, settled=False), 2) == [Raise(2)]


def test_pods_that_a_quota_keeps_from_being_made_are_no_longer_asked_for() -> None:
    pods = [pod("a", BUSY), pod("b", BUSY)]
    assert steps(build(*pods, replicas=9, settled=False, refused=True), 1) == [Lower(2)]
    assert steps(build(*pods, replicas=9, settled=False), 1) == []


WORKS = st.one_of(st.none(), st.builds(Work, receiving=st.booleans(), in_flight=st.integers(0, 1), slots=st.just(2)))
PODS = st.builds(
    Pod, name=st.uuids().map(str), ready=st.booleans(), started=st.booleans(), work=WORKS,
    cost=st.sampled_from([0, LOWEST_COST]),
).map(lambda pod: pod if pod.started else replace(pod, ready=False, work=None))  # fmt: skip


def has_nothing(pod: Pod) -> bool:
    return not pod.started or (pod.work is not None and pod.work.drained)


@settings(max_examples=500)
@given(st.lists(PODS, min_size=1, max_size=6), st.integers(0, 5))
def test_whatever_the_pods_are_a_lowering_takes_those_that_have_nothing(pods: list[Pod], target: int) -> None:
    """A ReplicaSet's order: not running, not ready, cost; among equals the worst for us."""
    for step in steps(build(*pods), target):
        if isinstance(step, Lower):
            assert step.replicas >= target
            order = sorted(pods, key=lambda pod: (pod.started, pod.ready, pod.cost, has_nothing(pod)))
            gone = order[: len(pods) - step.replicas]
            assert all(has_nothing(pod) for pod in gone)
            assert gone


@given(st.lists(PODS, min_size=1, max_size=6), st.integers(0, 8))
def test_nobody_works_while_it_is_cheap(pods: list[Pod], target: int) -> None:
    for step in steps(build(*pods), target):
        assert not (isinstance(step, Resume) and step.pod.cost == LOWEST_COST)
        if isinstance(step, Cheapen):
            assert has_nothing(step.pod)
