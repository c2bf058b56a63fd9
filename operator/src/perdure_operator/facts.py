"""What the API, the probes and Kubernetes say, as far as the decisions of the operator need it. `None`: not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct

from perdure_operator.objects import BUILD_LABEL, DELETION_COST, SLOTS, Object

_SLOTS_DEFAULT = 100


class Waiting(Struct, frozen=True):
    """Messages of one topic of workers."""

    kind: Literal["task", "workflow"]
    name: str
    build: str | None
    waiting: int
    """Not delivered to any worker."""
    in_flight: int
    """Delivered, and not acknowledged."""


class Open(Struct, frozen=True):
    """Runs of one workflow on one build."""

    name: str
    build: str | None
    counts: dict[str, int]
    open: int
    """Of those that have no end yet."""


class RunDefaults(Struct, frozen=True):
    """Of runs whose start gives none of its own; in milliseconds."""

    run_timeout_ms: int | None = None
    retention_ms: int | None = None


class Routing(Struct, frozen=True):
    """What new runs get."""

    current: str | None = None
    ramping: str | None = None
    ramping_percent: int = 0
    defaults: RunDefaults = RunDefaults()


class Failed(Struct, frozen=True):
    """A run that failed or is stuck."""

    workflow_id: str
    status: str
    last_error: str
    changed_at: int
    """Epoch milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the API says of one pool's names."""

    backlog: Sequence[Waiting] | None = None
    builds: Sequence[Open] | None = None
    routing: Routing | None = None
    failed: Sequence[Failed] | None = None
    problem: str = ""
    """Why something is not known."""

    def waiting(self, build: str | None) -> int | None:
        return None if self.backlog is None else sum(each.waiting for each in self.backlog if each.build == build)

    def in_flight(self, build: str | None) -> int | None:
        return None if self.backlog is None else sum(each.in_flight for each in self.backlog if each.build == build)

    def open_runs(self, build: str) -> int | None:
        return None if self.builds is None else sum(each.open for each in self.builds if each.build == build)


class Work(Struct, frozen=True):
    """What a worker says of itself."""

    receiving: bool
    in_flight: int
    slots: int

    @property
    def drained(self) -> bool:
        """It has nothing, and gets nothing."""
        return not self.receiving and self.in_flight == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that its ReplicaSet counts: it has not ended and is not being deleted."""

    name: str
    ip: str = ""
    ready: bool = False
    started: bool = False
    """One of its containers runs. While none does, it can have no work."""
    cost: int = 0
    work: Work | None = None
    trouble: str = ""
    """Why it does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPods:
    """The Deployment of one build, and its pods."""

    build: str
    name: str
    replicas: int
    """As its spec has it."""
    slots: int
    available: int = 0
    settled: bool = False
    """Kubernetes has seen the spec, all pods are of one template, and there are as many as it says."""
    refused: bool = False
    """Kubernetes does not make the pods that are missing: a quota, or a policy."""
    version: str = ""
    """Its resource version: what is lowered on is what was looked at."""
    pods: tuple[Pod, ...] = ()
    leaving: int = 0
    """Pods that are being deleted."""

    @property
    def in_flight(self) -> int:
        return sum(pod.work.in_flight for pod in self.pods if pod.work is not None)


def build_served(deployment: Object) -> str:
    """By its selector, which nobody can change, while its own labels anybody can."""
    build: str = deployment["spec"]["selector"]["matchLabels"][BUILD_LABEL]
    return build


def build_pods(deployment: Object, pods: Sequence[Object], works: Mapping[str, Work]) -> BuildPods:
    """`works`: by name of the pod."""
    metadata, spec, status = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    replicas = spec.get("replicas", 1)
    alive = [pod for pod in pods if _counts(pod)]
    settled = status.get("observedGeneration", 0) >= metadata.get("generation", 1) and status.get(
        "updatedReplicas", 0
    ) == status.get("replicas", 0) == replicas == len(alive)
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
    return BuildPods(
        build=build_served(deployment),
        name=metadata["name"],
        replicas=replicas,
        slots=int((metadata.get("annotations") or {}).get(SLOTS, _SLOTS_DEFAULT)),
        available=status.get("availableReplicas", 0),
        settled=settled,
        refused=conditions.get("ReplicaFailure") == "True",
        version=metadata.get("resourceVersion", ""),
        pods=tuple(_pod(pod, works.get(pod["metadata"]["name"])) for pod in alive),
        leaving=sum(1 for pod in pods if pod["metadata"].get("deletionTimestamp")),
    )


def is_running(pod: Object) -> bool:
    """Whether its worker can be asked."""
    return _counts(pod) and _started(pod) and bool((pod.get("status") or {}).get("podIP"))


def _counts(pod: Object) -> bool:
    phase = (pod.get("status") or {}).get("phase", "Pending")
    return phase not in {"Succeeded", "Failed"} and not pod["metadata"].get("deletionTimestamp")


def _started(pod: Object) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any("running" in (each.get("state") or {}) for each in statuses)


def _pod(pod: Object, work: Work | None) -> Pod:
    status = pod.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    return Pod(
        name=pod["metadata"]["name"],
        ip=status.get("podIP", ""),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        started=_started(pod),
        cost=_cost(pod["metadata"].get("annotations") or {}),
        work=work,
        trouble=_trouble(status, conditions),
    )


def _cost(annotations: Mapping[str, str]) -> int:
    try:
        return int(annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


_USUAL = {"ContainerCreating", "PodInitializing"}


def _trouble(status: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _USUAL:
            said = ((each.get("lastState") or {}).get("terminated") or {}).get("message") or waiting.get("message", "")
            return f"{waiting['reason']}: {said}".rstrip(": ").strip()
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}"
    return ""
