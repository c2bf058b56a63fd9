"""How many pods a build should have, and which may go.

Up at once: what is not running cannot work. Down only after the need was lower for all of the cool-down, and by a
protocol, since a ReplicaSet decides by itself which pods it deletes:

1. pods are chosen, and told to stop receiving;
2. each is seen not receiving, with nothing in flight, and not ready, as a drained worker's probe says;
3. each is given the lowest deletion cost, and seen with it;
4. the number of replicas goes down by as many.

A ReplicaSet deletes pods that do not run yet first, then those that are not ready, then those of lowest cost. So those
chosen go before any other that runs, whether that is ready or not. A pod whose containers do not run has nothing to
lose and counts as drained. Containers that start meanwhile, for the first time or again, begin drained: what starts
them hands them the cost (PERDURE_DELETION_COST), and that was there a round before the number of replicas goes down.

An unknown need changes nothing. When the need is back, those chosen are told to receive again; but not while Kubernetes
has yet to delete pods, since it may have chosen these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

from perdure_operator.facts import BuildPods, Pod
from perdure_operator.objects import LOWEST_COST
from perdure_operator.resources import Scaling

_PERCENT = 100


@dataclass(frozen=True, slots=True)
class Raise:
    replicas: int


@dataclass(frozen=True, slots=True)
class Lower:
    """To fewer replicas, if the Deployment is as it was looked at."""

    replicas: int


@dataclass(frozen=True, slots=True)
class Drain:
    pod: Pod


@dataclass(frozen=True, slots=True)
class Resume:
    pod: Pod


@dataclass(frozen=True, slots=True)
class Cheapen:
    """Give it the lowest deletion cost."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Spare:
    """Take the lowest deletion cost from it."""

    pod: Pod


Step: TypeAlias = Raise | Lower | Drain | Resume | Cheapen | Spare


def needed(waiting: int, in_flight: int, slots: int, scaling: Scaling) -> int:
    """Pods whose slots, used as far as they should be, hold all that is runnable or running; within the limits."""
    per_pod = slots * scaling.target_utilization
    wanted = ceil((waiting + in_flight) * _PERCENT / per_pod)
    return max(scaling.min, min(scaling.max, wanted))


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    need: int


Window: TypeAlias = tuple[Sample, ...]
"""The needs of the past cool-down, each true until the next; the first is the one that held when it began."""


def noted(window: Window, sample: Sample, cooldown_s: float) -> Window:
    """The window with one more sample."""
    before = [each for each in window if each.at <= sample.at - cooldown_s]
    within = [each for each in window if each.at > sample.at - cooldown_s]
    return (*before[-1:], *within, sample)


def bearable(window: Window, now: float, cooldown_s: float) -> int | None:
    """To how many pods it may go down: the highest need of the cool-down, if it was known all the time."""
    if not window or window[0].at > now - cooldown_s:
        return None
    return max(each.need for each in window)


def steps(build: BuildPods, target: int) -> Sequence[Step]:
    """What brings a build closer to `target` replicas now; nothing: it is there, or has to be waited for."""
    missing = build.refused and build.replicas > len(build.pods)
    calm = build.settled or missing
    if target >= build.replicas:
        freed: list[Step] = [step for pod in build.pods for step in _freed(pod)] if calm else []
        return [Raise(target), *freed] if target > build.replicas else freed
    if missing:
        return [Lower(max(target, len(build.pods)))]  # those that are missing were never made: this deletes no pod
    if not calm:
        return []
    excess = build.replicas - target
    order = sorted(build.pods, key=_dispensability)
    chosen, others = order[:excess], order[excess:]
    going = [pod for pod in chosen if _has_nothing(pod) and pod.cost == LOWEST_COST]
    if going and _go_first(going, [pod for pod in build.pods if pod not in going]):
        return [Lower(build.replicas - len(going))]
    return [*(step for pod in chosen for step in _toward_end(pod)), *(step for pod in others for step in _freed(pod))]


def _dispensability(pod: Pod) -> tuple[int, int, str]:
    """First those without a running container, then who has nothing, then who drains, then who has least to do."""
    if not pod.started:
        return 0, 0, pod.name
    if pod.work is None:
        return 4, 0, pod.name
    if pod.work.drained:
        return 1, 0, pod.name
    return (3 if pod.work.receiving else 2), pod.work.in_flight, pod.name


def _has_nothing(pod: Pod) -> bool:
    """And a ReplicaSet knows it: it is not ready."""
    return not pod.started or (pod.work is not None and pod.work.drained and not pod.ready)


def _go_first(going: Sequence[Pod], others: Sequence[Pod]) -> bool:
    """Whether a ReplicaSet deletes all of `going`, none of which is ready, before any of the others."""
    if any(pod.cost == LOWEST_COST for pod in others):
        return False
    return all(pod.started for pod in others) or not any(pod.started for pod in going)


def _toward_end(pod: Pod) -> list[Step]:
    if _has_nothing(pod):
        return [] if pod.cost == LOWEST_COST else [Cheapen(pod)]
    if pod.work is not None and pod.work.receiving:
        return [Drain(pod)]
    return []


def _freed(pod: Pod) -> list[Step]:
    """Back to work. It bears the lowest cost no longer before it receives: what is busy must never be cheap."""
    if pod.cost == LOWEST_COST:
        return [Spare(pod)]
    if pod.work is not None and not pod.work.receiving:
        return [Resume(pod)]
    return []
