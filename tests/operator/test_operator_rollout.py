"""Which build gets new work, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from perdure_operator.facts import BuildPods, Facts, Open, Pod, Routing, RunDefaults, Waiting, Work
from perdure_operator.objects import Key, Object
from perdure_operator.resources import Pool, pool_of
from perdure_operator.rollout import DELETED_AFTER_S, ROUTING_KEPT_S, Decision, Memory, decide

NOW = 1_000.0


def pool(kind: str = "Workflow", **spec: Any) -> Pool:
    named: Object = {"tasks": ["crop"]} if kind == "Worker" else {"workflow": "order"}
    said = {"image": "shop:1", "slots": 2, "scaling": {"cooldownSeconds": 10}, **named, **spec}
    return pool_of(Key(kind, "shop", "it"), {"metadata": {"uid": "u"}, "spec": said})  # type: ignore[arg-type]


def has(build: str, replicas: int = 0, available: int = 0, *, busy: int = 0) -> BuildPods:
    pods = tuple(
        Pod(name=f"{build}{n}", ready=True, started=True, work=Work(receiving=True, in_flight=busy, slots=2))
        for n in range(replicas)
    )
    return BuildPods(build=build, name=build, replicas=replicas, slots=2, available=available, settled=True, pods=pods)


def facts(*waiting: tuple[str | None, int, int], routed: str | None = "a", **open_runs: int) -> Facts:
    """(build, waiting, in flight) of the one name."""
    return Facts(
        backlog=[Waiting(kind="workflow", name="order", build=b, waiting=w, in_flight=f) for b, w, f in waiting],
        builds=[Open(name="order", build=b, counts={"running": n}, open=n) for b, n in open_runs.items()],
        routing=Routing(current=routed),
        failed=(),
    )


def decided(
    target: str,
    builds: Sequence[BuildPods],
    known: Facts,
    *,
    previous: str | None = "a",
    proven: frozenset[str] = frozenset(),
    memory: Memory | None = None,
    now: float = NOW,
    of: Pool | None = None,
) -> Decision:
    return decide(
        of or pool(), target, builds, known, previous=previous, proven=proven, memory=memory or Memory(), now=now
    )


def settled(build: str) -> Memory:
    return Memory(routed=(build, NOW - ROUTING_KEPT_S))


def test_the_first_build_is_current_without_a_pod() -> None:
    found = decided("a", [], facts(routed=None), previous=None)
    assert (found.current, found.targets, found.states) == ("a", {"a": 0}, {"a": "Current"})
    assert found.route == Routing(current="a")


def test_a_new_build_starts_one_pod_first() -> None:
    found = decided("b", [has("a", 2, 2)], facts())
    assert (found.current, found.targets["b"], found.states) == ("a", 1, {"a": "Current", "b": "Pending"})
    assert found.route is None


def test_an_available_build_becomes_current() -> None:
    found = decided("b", [has("a", 1, 1), has("b", 1, 1)], facts())
    assert (found.current, found.states) == ("b", {"a": "Draining", "b": "Current"})
    assert found.route == Routing(current="b")
    assert found.targets["a"] == 1, "the engines may still begin runs on it"


def test_a_build_that_was_current_once_is_so_at_once() -> None:
    assert decided("b", [has("a", 1, 1)], facts(), proven=frozenset({"b"})).current == "b"


def test_if_the_current_build_has_no_deployment_any_more_the_new_one_takes_over() -> None:
    assert decided("b", [has("b", 1, 0)], facts()).current == "b"


def test_an_old_build_stays_while_the_routing_record_may_be_cached() -> None:
    seen = decided("b", [has("a", 1, 1), has("b", 1, 1)], facts(routed="b"), previous="b")
    assert seen.targets["a"] == 1
    late = NOW + ROUTING_KEPT_S
    assert decided("b", [has("a", 1, 1), has("b", 1, 1)], facts(routed="b"), previous="b", memory=seen.memory,
                   now=late).targets["a"] == 0  # fmt: skip
    back = decided("b", [has("a", 1, 1), has("b", 1, 1)], facts(routed="a"), previous="b", memory=seen.memory, now=late)
    assert back.targets["a"] == 1
    assert back.memory.routed is None


@pytest.mark.parametrize(("known", "target"), [
    (facts(("a", 0, 0), routed="b", a=1), 1),
    (facts(("a", 7, 0), routed="b"), 5),
    (facts(("a", 0, 1), routed="b"), 1),
    (facts((None, 9, 0), routed="b"), 0),
    (Facts(routing=Routing(current="b"), builds=[]), 1),
    (Facts(routing=Routing(current="b"), backlog=[]), 1),
])  # fmt: skip
def test_an_old_build_has_what_its_own_runs_need(known: Facts, target: int) -> None:
    found = decided("b", [has("a", 1, 1), has("b", 1, 1)], known, previous="b", memory=settled("b"))
    assert found.targets["a"] == target
    assert found.states["a"] == "Draining"


def test_an_old_build_whose_runs_sleep_sleeps_too() -> None:
    builds, known = [has("a", 1, 1), has("b", 1, 1)], facts(("a", 0, 0), routed="b", a=1)
    begun = decided("b", builds, known, previous="b", memory=settled("b"))
    later = decided("b", builds, known, previous="b", memory=begun.memory, now=NOW + 10)
    assert (begun.targets["a"], later.targets["a"]) == (1, 0)
    asleep = decided("b", [has("a"), has("b", 1, 1)], known, previous="b", memory=later.memory, now=NOW + 999)
    assert (asleep.states["a"], asleep.gone) == ("Draining", [])


def test_a_drained_build_goes_after_a_while_and_not_if_a_run_turns_up() -> None:
    builds = [has("a"), has("b", 1, 1)]
    found = decided("b", builds, facts(routed="b"), previous="b", memory=settled("b"))
    assert (found.states["a"], found.gone) == ("Drained", [])
    later = NOW + DELETED_AFTER_S
    gone = decided("b", builds, facts(routed="b"), previous="b", memory=found.memory, now=later)
    assert gone.gone == ["a"]
    back = decided("b", builds, facts(routed="b", a=1), previous="b", memory=found.memory, now=later)
    assert (back.states["a"], back.gone) == ("Draining", [])


def test_runs_that_are_not_pinned_get_whatever_build_is_there() -> None:
    free = pool(rollout="auto-upgrade")
    found = decided("b", [has("a", 1, 1), has("b", 1, 1)], facts(routed="a"), of=free)
    assert found.route == Routing(current=None)
    later = decided(
        "b", [has("a", 1, 1), has("b", 1, 1)], facts(routed=None), previous="b", of=free, memory=settled("b")
    )
    assert (later.route, later.targets["a"]) == (None, 0)


DECLARED = {"runTimeoutSeconds": 60, "retentionSeconds": 86_400}
DEFAULTS = RunDefaults(run_timeout_ms=60_000, retention_ms=86_400_000)


@pytest.mark.parametrize(("declared", "found", "written"), [
    (DECLARED, RunDefaults(), DEFAULTS),
    (DECLARED, DEFAULTS, None),
    (DECLARED, RunDefaults(run_timeout_ms=60_000), DEFAULTS),
    ({"retentionSeconds": 1}, RunDefaults(), RunDefaults(retention_ms=1_000)),
    ({}, DEFAULTS, RunDefaults()),
    (None, DEFAULTS, RunDefaults()),
    (None, RunDefaults(), None),
])  # fmt: skip
def test_the_routing_record_has_the_defaults_that_are_declared(
    declared: Any, found: RunDefaults, written: RunDefaults | None
) -> None:
    of = pool() if declared is None else pool(defaults=declared)
    known = replace(facts(), routing=Routing(current="a", defaults=found))
    expected = None if written is None else Routing(current="a", defaults=written)
    assert decided("a", [has("a", 1, 1)], known, of=of).route == expected


def test_defaults_do_not_wait_for_the_build_of_their_spec() -> None:
    found = decided("b", [has("a", 1, 1)], facts(), of=pool(defaults=DECLARED))
    assert found.route == Routing(current="a", defaults=DEFAULTS)
    free = decided("b", [has("a", 1, 1)], facts(routed=None), of=pool(defaults=DECLARED, rollout="auto-upgrade"))
    assert free.route == Routing(current=None, defaults=DEFAULTS)


def test_a_new_build_takes_the_defaults_along() -> None:
    found = decided("b", [has("a", 1, 1), has("b", 1, 1)], facts(), of=pool(defaults=DECLARED))
    assert found.route == Routing(current="b", defaults=DEFAULTS)


def test_defaults_that_change_leave_alone_what_ramps_and_let_old_builds_go() -> None:
    ramping = Routing(current="b", ramping="c", ramping_percent=10)
    known = replace(facts(("a", 0, 0)), routing=ramping)
    found = decided(
        "b", [has("a", 1, 1), has("b", 1, 1)], known, previous="b", memory=settled("b"), of=pool(defaults=DECLARED)
    )
    assert found.route == Routing(current="b", ramping="c", ramping_percent=10, defaults=DEFAULTS)
    assert found.memory.routed == settled("b").routed, "the build is where it was"
    assert found.targets["a"] == 0


def test_the_builds_of_a_worker_need_no_routing_record() -> None:
    known = Facts(backlog=[Waiting(kind="task", name="crop", build=None, waiting=4, in_flight=0)])
    found = decided("b", [has("a", 2, 2, busy=1), has("b", 1, 1)], known, of=pool("Worker"))
    assert (found.current, found.targets, found.route) == ("b", {"a": 0, "b": 3}, None)


def test_what_old_builds_have_in_hand_is_not_the_current_ones_to_do() -> None:
    known = facts((None, 0, 4), routed="b")
    found = decided("b", [has("a", 2, 2, busy=2), has("b", 0)], known, previous="b", memory=settled("b"))
    assert found.targets["b"] == 0


def test_unknown_need_keeps_what_is_there_but_not_less_than_the_least() -> None:
    known = Facts(routing=Routing(current="a"))
    scaling = {"min": 2, "cooldownSeconds": 10}
    assert decided("a", [has("a", 3, 3)], known, of=pool(scaling=scaling)).targets == {"a": 3}
    assert decided("a", [has("a", 1, 1)], known, of=pool(scaling=scaling)).targets == {"a": 2}


def test_what_is_there_stays_until_keda_has_said_something() -> None:
    scaling = {"provider": "keda", "min": 1}
    begun = decided("a", [has("a", 7, 7)], Facts(), of=pool("Worker", scaling=scaling))
    assert begun.targets == {"a": 7}
    assert decided("a", [has("a")], Facts(), of=pool("Worker", scaling=scaling)).targets == {"a": 1}
    assert decided("a", [has("a", 7, 7)], Facts(), of=pool("Worker", scaling=scaling, replicas=0)).targets == {"a": 0}


def test_another_autoscaler_is_followed_at_once() -> None:
    outside = pool("Worker", scaling={"provider": "none", "min": 1}, replicas=4)
    assert decided("a", [has("a", 9, 9)], Facts(), of=outside).targets == {"a": 4}
    assert decided(
        "a", [has("a", 9, 9)], Facts(), of=pool("Worker", scaling={"provider": "none", "min": 1})
    ).targets == {"a": 1}
