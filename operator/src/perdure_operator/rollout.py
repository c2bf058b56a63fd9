"""Which build gets new work, and what becomes of the others.

A new build first runs one pod. When that is available the build is current: the routing record names it, and so new
runs begin on it. Older builds then drain: they serve what is pinned to them, with as many pods as that needs, and when
nothing is left they go to zero, and a while later their Deployment goes. A build that was current before is current
again at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from msgspec import structs

from perdure_operator.facts import BuildPods, Facts, Routing, RunDefaults
from perdure_operator.resources import Pool
from perdure_operator.scaling import Sample, Window, bearable, needed, noted

ROUTING_KEPT_S = 10.0
"""Engines keep a routing record for a second, and the lists of runs are behind by less than two: a run that began on a
build while the record changed is counted by then."""
DELETED_AFTER_S = 30.0
"""How long a Deployment stays at zero before it goes: a run that turns up late wakes it."""

State: TypeAlias = Literal["Pending", "Current", "Draining", "Drained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a pool's decisions remember. If it is lost, things take longer, and nothing goes wrong."""

    windows: Mapping[str, Window] = field(default_factory=dict)
    """Of each build."""
    routed: tuple[str, float] | None = None
    """The current build, and since when the routing record is seen to name it."""
    drained: Mapping[str, float] = field(default_factory=dict)
    """Since when an old build has nothing left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    current: str
    targets: Mapping[str, int]
    """Replicas of each build, that of the spec included even where it has no Deployment yet."""
    states: Mapping[str, State]
    route: Routing | None
    """What to write into the routing record; None: nothing."""
    gone: Sequence[str]
    """Builds whose Deployment is to be deleted."""
    memory: Memory


def decide(
    pool: Pool,
    target: str,
    builds: Sequence[BuildPods],
    facts: Facts,
    *,
    previous: str | None,
    proven: Set[str],
    memory: Memory,
    now: float,
) -> Decision:
    """`target`: the build of the present spec. `previous`: the current build until now. `proven`: were current once."""
    scaling = pool.spec.scaling
    current = _current(target, {each.build: each for each in builds}, previous, proven)
    route = _route(pool, current, facts)
    memory = replace(memory, routed=_routed(pool, current, facts, memory, now=now))
    targets: dict[str, int] = {}
    states: dict[str, State] = {}
    windows: dict[str, Window] = {}
    drained: dict[str, float] = {}
    for each in [*builds, *([] if any(b.build == target for b in builds) else [_unborn(pool, target)])]:
        build = each.build
        if build == current:
            need, states[build] = _need_of_current(pool, each, builds, facts), "Current"
        elif build == target:
            targets[build], states[build] = max(1, each.replicas), "Pending"
            continue
        else:
            need, left = _need_of_old(pool, each, facts, settled=_settled(pool, current, memory, now))
            empty = left is False and each.replicas == 0 and not each.pods and not each.leaving
            states[build] = "Drained" if empty else "Draining"
            if empty:
                drained[build] = memory.drained.get(build, now)
            if left is False:
                targets[build] = 0
                continue
        if build == current and scaling.provider != "builtin" and need is not None:
            targets[build] = need  # whoever wrote it has waited long enough
            continue
        floor = scaling.min if build == current else 0
        window = memory.windows.get(build, ())
        windows[build], targets[build] = _scaled(
            each, need, window, now, floor=floor, cooldown_s=scaling.cooldown_seconds
        )
    gone = [build for build, since in drained.items() if now - since >= DELETED_AFTER_S]
    kept = replace(memory, windows=windows, drained=drained)
    return Decision(current=current, targets=targets, states=states, route=route, gone=gone, memory=kept)


def _current(target: str, builds: Mapping[str, BuildPods], previous: str | None, proven: Set[str]) -> str:
    if previous is None or previous not in builds or target in proven:
        return target
    return target if target in builds and builds[target].available > 0 else previous


def _route(pool: Pool, current: str, facts: Facts) -> Routing | None:
    """As long as the build is right, what somebody lets ramp beside it stays."""
    if pool.kind != "Workflow" or facts.routing is None:
        return None
    found, wanted = facts.routing, Routing(current=_named(pool, current), defaults=_defaults(pool))
    if found.current != wanted.current:
        return wanted
    return structs.replace(found, defaults=wanted.defaults) if found.defaults != wanted.defaults else None


def _named(pool: Pool, current: str) -> str | None:
    """The build that the routing record is to name."""
    return current if pool.pinned else None


def _defaults(pool: Pool) -> RunDefaults:
    declared = pool.spec.defaults
    return RunDefaults(_milliseconds(declared.run_timeout_seconds), _milliseconds(declared.retention_seconds))


def _milliseconds(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


def _routed(pool: Pool, current: str, facts: Facts, memory: Memory, *, now: float) -> tuple[str, float] | None:
    """Since when new runs go where they should."""
    if pool.kind == "Workflow" and (facts.routing is None or facts.routing.current != _named(pool, current)):
        return None
    if memory.routed is not None and memory.routed[0] == current:
        return memory.routed
    return current, now


def _settled(pool: Pool, current: str, memory: Memory, now: float) -> bool:
    if pool.kind == "Worker":
        return True
    return memory.routed is not None and memory.routed[0] == current and now - memory.routed[1] >= ROUTING_KEPT_S


def _unborn(pool: Pool, build: str) -> BuildPods:
    return BuildPods(build=build, name="", replicas=0, slots=pool.spec.slots)


def _need_of_current(pool: Pool, build: BuildPods, builds: Sequence[BuildPods], facts: Facts) -> int | None:
    """All that is for any build is the current one's to do, but for what older ones have in hand."""
    if pool.spec.scaling.provider != "builtin":
        return _followed(pool, build)
    any_waiting, waiting = facts.waiting(None), facts.waiting(build.build)
    any_flying, flying = facts.in_flight(None), facts.in_flight(build.build)
    if any_waiting is None or waiting is None or any_flying is None or flying is None:
        return None
    elsewhere = sum(each.in_flight for each in builds if each.build != build.build)
    in_flight = max(build.in_flight, flying + max(0, any_flying - elsewhere))
    return needed(any_waiting + waiting, in_flight, build.slots, pool.spec.scaling)


def _followed(pool: Pool, build: BuildPods) -> int:
    """As another scaler says; as long as KEDA has not, what is there."""
    scaling = pool.spec.scaling
    if pool.spec.replicas is not None:
        return pool.spec.replicas
    return max(scaling.min, build.replicas) if scaling.provider == "keda" else scaling.min


def _need_of_old(pool: Pool, build: BuildPods, facts: Facts, *, settled: bool) -> tuple[int | None, bool | None]:
    """Replicas, and whether something is left for this build; None: that is not known."""
    open_runs = facts.open_runs(build.build) if pool.kind == "Workflow" else 0
    waiting, in_flight = facts.waiting(build.build), facts.in_flight(build.build)
    if open_runs is None or waiting is None or in_flight is None:
        return None, None
    if open_runs or waiting or in_flight:
        scaling = pool.spec.scaling
        limits = type(scaling)(min=0, max=max(1, scaling.max), target_utilization=scaling.target_utilization)
        return needed(waiting, max(in_flight, build.in_flight), build.slots, limits), True
    return (0, False) if settled else (None, None)


def _scaled(
    build: BuildPods, need: int | None, window: Window, now: float, *, cooldown_s: float, floor: int
) -> tuple[Window, int]:
    """The window after this look, and the replicas to go for."""
    if need is None:
        return (), max(build.replicas, floor)
    window = noted(window, Sample(now, need), cooldown_s)
    if need >= build.replicas:
        return window, need
    lowest = bearable(window, now, cooldown_s)
    return window, build.replicas if lowest is None else min(build.replicas, max(need, lowest))
