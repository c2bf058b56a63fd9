"""What is told of a pool: a pure function of what was seen and decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from perdure_operator.desired import selector_of
from perdure_operator.facts import BuildPods, Facts
from perdure_operator.objects import Object
from perdure_operator.resources import Pool, Rejected, Unfollowed
from perdure_operator.rollout import Decision, State

ERRORS_MAX = 5
"""Last errors that are shown: the lists of the API have all."""
_MESSAGE_MAX = 500
"""Characters of a message: whoever wants a traceback asks `perdure show`."""

ConditionType: TypeAlias = Literal["Accepted", "Available", "Progressing", "Drained"]
ConditionReason: TypeAlias = Literal[
    "Accepted", "InvalidSpec", "ConnectionNotFound", "ConnectionInvalid", "SecretNotFound", "SecretForbidden",
    "RejectedByKubernetes", "KedaNotInstalled", "KedaForbidden", "WorkflowTaken",
    "PodsAvailable", "ScaledToZero", "NoPodAvailable", "Starting",
    "Complete", "NewBuildNotAvailable", "Scaling", "NeedUnknown", "TopicsNotMade", "NotRouted",
    "NoOldBuilds", "OldBuildsServeRuns", "OldBuildsStop",
]  # fmt: skip
"""Part of the API: what scripts may look at."""


@dataclass(frozen=True, slots=True)
class Condition:
    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: ConditionReason
    message: str


@dataclass(frozen=True, slots=True)
class Undone:
    """What the API was told to do, and did not."""

    reason: Literal["TopicsNotMade", "NotRouted"]
    message: str


def rejected(unfollowed: Unfollowed, told: Object, now_ms: int) -> Object:
    """The status of what cannot be followed. `told`: of what runs, whose conditions are of an older generation."""
    found, generation = [_refused(unfollowed.error)], unfollowed.generation
    return {
        **told,
        "observedGeneration": generation,
        "conditions": conditions(found, told.get("conditions") or [], generation, now_ms),
    }


def held(builds: Sequence[BuildPods], before: Object, now_ms: int) -> Object:
    """What was told before, with the pods that there are now: nothing was decided, and none is started."""
    states = {each["build"]: each["state"] for each in before.get("builds") or []}
    known = before.get("conditions") or []
    current = next((each for each in builds if each.build == before.get("currentBuild")), None)
    if current is not None:
        generation = next((each.get("observedGeneration", 1) for each in known if each["type"] == "Available"), 1)
        known = conditions([_available_of(current, at_zero=_HELD_AT_ZERO)], known, generation, now_ms)
    told = [_build(each, states.get(each.build, "Pending")) for each in sorted(builds, key=lambda each: each.name)]
    return {**before, **_pods(builds), "builds": told, "conditions": known}


def status_of(
    pool: Pool,
    target: str,
    builds: Sequence[BuildPods],
    facts: Facts,
    *,
    decision: Decision,
    refusal: Rejected | None,
    undone: Undone | None,
    before: Object,
    now_ms: int,
) -> Object:
    """The whole status of a pool whose spec can be read. `refusal`: what Kubernetes has against it."""
    found = [
        Condition("Accepted", "True", "Accepted", "") if refusal is None else _refused(refusal),
        _available(builds, decision),
        _progressing(target, builds, facts, decision, undone=undone),
        _drained(facts, decision),
    ]
    selector = ",".join(f"{name}={value}" for name, value in sorted(selector_of(pool).items()))
    waiting = None if facts.backlog is None else sum(each.waiting for each in facts.backlog)
    told: dict[str, Any] = {
        "observedGeneration": pool.generation,
        "conditions": conditions(found, before.get("conditions") or [], pool.generation, now_ms),
        "currentBuild": decision.current,
        "targetBuild": target,
        **_pods(builds),
        "selector": selector,
        "waiting": before.get("waiting") if waiting is None else waiting,
        "builds": _builds(builds, facts, decision),
    }
    if pool.kind == "Workflow":
        told["runs"] = _runs(facts) if facts.builds is not None else before.get("runs")
        told["lastErrors"] = _errors(facts) if facts.failed is not None else before.get("lastErrors")
    # An empty map instead of one that was not empty becomes null by server-side apply, which the schema refuses.
    return {name: value for name, value in told.items() if value is not None and value != {}}


def conditions(
    found: Sequence[Condition], before: Sequence[Mapping[str, Any]], generation: int, now_ms: int
) -> list[Object]:
    """As Kubernetes keeps them; the time of the last transition stays while the status is the same."""
    known = {each.get("type"): each for each in before}
    merged = dict(known)
    for each in found:
        old = known.get(each.type)
        same = old is not None and old.get("status") == each.status
        merged[each.type] = {
            "type": each.type,
            "status": each.status,
            "reason": each.reason,
            "message": each.message,
            "observedGeneration": generation,
            "lastTransitionTime": old["lastTransitionTime"] if same and old is not None else timestamp(now_ms),
        }
    return [dict(each) for each in merged.values()]


def _refused(error: Rejected) -> Condition:
    return Condition("Accepted", "False", error.reason, str(error)[:_MESSAGE_MAX])


def timestamp(epoch_ms: int) -> str:
    """As the API server writes times."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _available(builds: Sequence[BuildPods], decision: Decision) -> Condition:
    current = next((each for each in builds if each.build == decision.current), None)
    if current is None:
        return Condition("Available", "False", "Starting", "")
    return _available_of(current, at_zero=_AT_ZERO if decision.targets.get(current.build, 0) == 0 else None)


def _available_of(current: BuildPods, *, at_zero: Condition | None) -> Condition:
    """`at_zero`: what it is without a pod; None: it should have some."""
    if current.available > 0:
        return Condition("Available", "True", "PodsAvailable", "")
    if current.replicas == 0 and at_zero is not None:
        return at_zero
    return Condition("Available", "False", "NoPodAvailable", _trouble(current))


_AT_ZERO = Condition("Available", "True", "ScaledToZero", "pods start when there is work")
_HELD_AT_ZERO = Condition("Available", "False", "NoPodAvailable", "pods start once the spec can be followed")


def _progressing(
    target: str, builds: Sequence[BuildPods], facts: Facts, decision: Decision, *, undone: Undone | None
) -> Condition:
    if undone is not None and not facts.problem:  # else the API is away, and that says more
        return Condition("Progressing", "True", undone.reason, undone.message[:_MESSAGE_MAX])
    if target != decision.current:
        new = next((each for each in builds if each.build == target), None)
        return Condition("Progressing", "True", "NewBuildNotAvailable", "" if new is None else _trouble(new))
    if facts.problem:
        return Condition(
            "Progressing", "Unknown", "NeedUnknown", f"nothing is scaled down: {facts.problem}"[:_MESSAGE_MAX]
        )
    current = next((each for each in builds if each.build == target), None)
    if current is None or decision.targets.get(target) != current.replicas or not current.settled:
        return Condition("Progressing", "True", "Scaling", "" if current is None else _trouble(current))
    return Condition("Progressing", "False", "Complete", "")


def _drained(facts: Facts, decision: Decision) -> Condition:
    old = [build for build, state in decision.states.items() if state == "Draining"]
    if not old:
        return Condition("Drained", "True", "NoOldBuilds", "")
    if any(facts.open_runs(build) for build in old):
        return Condition("Drained", "False", "OldBuildsServeRuns", "")
    return Condition("Drained", "False", "OldBuildsStop", "")


def _trouble(build: BuildPods) -> str:
    pod = next((pod for pod in build.pods if pod.trouble), None)
    return "" if pod is None else f"pod {pod.name}: {pod.trouble}"[:_MESSAGE_MAX]


def _builds(builds: Sequence[BuildPods], facts: Facts, decision: Decision) -> list[Object]:
    told = []
    for each in sorted(builds, key=lambda each: each.name):
        item = _build(each, decision.states[each.build])
        open_runs = facts.open_runs(each.build)
        if open_runs is not None:
            item["openRuns"] = open_runs
        told.append(item)
    return told


def _build(build: BuildPods, state: State) -> Object:
    return {"build": build.build, "state": state, "replicas": len(build.pods), "inFlight": build.in_flight}


def _pods(builds: Sequence[BuildPods]) -> Object:
    return {"replicas": sum(len(each.pods) for each in builds), "inFlight": sum(each.in_flight for each in builds)}


def _runs(facts: Facts) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in facts.builds or ():
        for status, number in each.counts.items():
            total[status] = total.get(status, 0) + number
    return {status: number for status, number in sorted(total.items()) if number}


def _errors(facts: Facts) -> list[Object]:
    newest = sorted(facts.failed or (), key=lambda each: each.changed_at, reverse=True)[:ERRORS_MAX]
    return [
        {
            "workflowId": each.workflow_id,
            "status": each.status,
            "message": each.last_error[:_MESSAGE_MAX],
            "at": timestamp(each.changed_at),
        }
        for each in newest
    ]
