"""A cluster in memory: objects as the API server keeps them, controllers as Kubernetes documents them, and workers.

Controllers and kubelets act when a test says so, so that a test decides who is behind whom.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from perdure_operator.facts import Work
from perdure_operator.objects import BUILD_LABEL, DELETION_COST, Key, Kind, Object
from perdure_operator.ports import Changed, Forbidden, NotServed, Unavailable

NAMESPACE = "shop"
SLOTS = 2


@dataclass(slots=True)
class Process:
    """The worker in a pod."""

    build: str
    slots: int
    receiving: bool = True
    in_flight: list[tuple[str, str | None]] = field(default_factory=list)
    """Name and build of the topic that each message came from."""
    reachable: bool = True


class Store:
    """As the port `Kubernetes`: what the API server does by itself."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], Object] = {}
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.forbidden: set[Kind] = set()
        """Kinds that the operator has no rights on."""
        self.not_served: set[Kind] = {"ScaledObject", "TriggerAuthentication"}
        """Kinds whose definition is not installed."""
        self._version = 0

    # What users do.

    def declare(self, kind: Kind, name: str, spec: Object) -> None:
        found = self.objects.get((kind, name))
        if found is None:
            made = datetime.fromtimestamp(self._version, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{kind}-{name}", "generation": 1,
                        "creationTimestamp": made}  # fmt: skip
            self._store({"apiVersion": "perdure.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
        elif found["spec"] != spec:
            found["spec"] = spec
            found["metadata"]["generation"] += 1
            self._touch(found)

    def remove(self, kind: Kind, name: str) -> None:
        """With what it owns, as the garbage collector does."""
        gone = self.objects.pop((kind, name), None)
        if gone is None:
            return
        uid = gone["metadata"].get("uid")
        for other_kind, other in [*self.objects]:
            owners = self.objects.get((other_kind, other), {}).get("metadata", {}).get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                self.remove(other_kind, other)

    def all(self, kind: Kind) -> list[Object]:
        return [item for (each, _), item in sorted(self.objects.items()) if each == kind]

    # The port.

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        self.reads.append(f"get {kind}")
        if kind in self.forbidden:
            raise Forbidden(f"{kind} is forbidden")
        return copy.deepcopy(self.objects.get((kind, name)))

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Object]:
        self.reads.append(f"list {kind}")
        return [
            {part: copy.deepcopy(value) for part, value in item.items() if part not in {"apiVersion", "kind"}}
            for item in self.all(kind)
            if labels.items() <= (item["metadata"].get("labels") or {}).items()
        ]

    async def apply(self, item: Object) -> Object:
        kind, name = item["kind"], item["metadata"]["name"]
        if kind in self.not_served:
            raise NotServed(f"no {kind}")
        self.writes.append(f"apply {kind} {name}")
        found = self.objects.get((kind, name))
        given = copy.deepcopy(item)
        version = given["metadata"].pop("resourceVersion", None)
        if found is None:
            if version is not None:
                raise Changed(f"{kind} {name} is gone")
            given["metadata"] |= {"uid": f"uid-{kind}-{name}", "generation": 1}
            self._defaulted(given)
            return copy.deepcopy(self._store(given))
        if version not in {None, found["metadata"]["resourceVersion"]}:  # who says none has not looked, and overwrites
            raise Changed(f"{kind} {name} was changed")
        self._defaulted(given)
        if given.get("spec") != found.get("spec"):
            found["metadata"]["generation"] += 1
        for part in ("labels", "annotations"):
            found["metadata"][part] = {**found["metadata"].get(part, {}), **given["metadata"].get(part, {})}
        found.update({name: value for name, value in given.items() if name != "metadata"})
        return copy.deepcopy(self._touch(found))

    async def apply_status(self, key: Key, status: Object) -> None:
        self.writes.append(f"status {key.kind} {key.name}")
        assert {} not in status.values(), "server-side apply may make it null"
        if found := self.objects.get((key.kind, key.name)):
            found["status"] = copy.deepcopy(status)
            self._touch(found)

    async def set_replicas(self, key: Key, replicas: int) -> None:
        self.writes.append(f"replicas {key.kind} {key.name} {replicas}")
        found = self.objects[key.kind, key.name]
        self.declare(key.kind, key.name, {**found["spec"], "replicas": replicas})

    async def scale(self, namespace: str, deployment: str, replicas: int, version: str) -> None:
        self.writes.append(f"scale {deployment} {replicas}")
        found = self.objects["Deployment", deployment]
        if found["metadata"]["resourceVersion"] != version:
            raise Changed(f"Deployment {deployment} was changed")
        found["spec"]["replicas"] = replicas
        found["metadata"]["generation"] += 1
        self._touch(found)

    async def annotate(self, namespace: str, pod: str, annotation: str, value: str | None) -> None:
        self.writes.append(f"annotate {pod} {value}")
        if (found := self.objects.get(("Pod", pod))) is None:
            return
        annotations = found["metadata"].setdefault("annotations", {})
        if value is None:
            annotations.pop(annotation, None)
        else:
            annotations[annotation] = value
        self._touch(found)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self.writes.append(f"delete {kind} {name}")
        self.remove(kind, name)

    def _defaulted(self, item: Object) -> None:
        """A few of the fields that the API server adds."""
        if item["kind"] == "Deployment":
            item["spec"]["progressDeadlineSeconds"] = 600
            item["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
            for container in item["spec"]["template"]["spec"]["containers"]:
                container["terminationMessagePath"] = "/dev/termination-log"

    def _store(self, item: Object) -> Object:
        self.objects[item["kind"], item["metadata"]["name"]] = item
        return self._touch(item)

    def _touch(self, item: Object) -> Object:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        return item


class Cluster(Store):
    """With the controllers and kubelets behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: dict[str, Process] = {}
        """By pod; one that is not there has not started."""
        self.violations: list[str] = []
        self.startable = True
        """Whether images can be pulled."""
        self._pods = 0

    def remove(self, kind: Kind, name: str) -> None:
        super().remove(kind, name)
        if kind == "Pod":
            self.processes.pop(name, None)

    def relabel(self, kind: Kind, name: str, label: str, value: str | None) -> None:
        """By another tool; None takes the label away."""
        found = self.objects[kind, name]
        labels = {each: of for each, of in found["metadata"]["labels"].items() if each != label}
        found["metadata"]["labels"] = labels if value is None else {**labels, label: value}
        self._touch(found)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        for pod in self._pods_of(name) if kind == "Deployment" else []:
            self._judge(pod["metadata"]["name"], "deleted with its Deployment")
        await super().delete(kind, namespace, name)

    def control(self) -> None:
        """The controllers of Deployments and ReplicaSets make or delete pods, and tell what there is."""
        for deployment in self.all("Deployment"):
            name, replicas = deployment["metadata"]["name"], deployment["spec"]["replicas"]
            pods = self._pods_of(name)
            for _ in range(replicas - len(pods)):
                self._make_pod(deployment)
            for pod in sorted(pods, key=self._deletion_order)[: max(0, len(pods) - replicas)]:
                self._judge(pod["metadata"]["name"], "deleted by its ReplicaSet")
                self.remove("Pod", pod["metadata"]["name"])
            self._tell(deployment)

    def run_pods(self) -> None:
        """Kubelets start what is to be started, and probe what ran before."""
        for pod in self.all("Pod"):
            name = pod["metadata"]["name"]
            probed = name in self.processes
            if not probed and self.startable:
                self.processes[name] = _process(pod)
            process = self.processes.get(name)
            if process is None:
                continue
            pod["status"] = {
                "phase": "Running",
                "podIP": name,
                "containerStatuses": [{"name": "worker", "state": {"running": {}}}],
                "conditions": [{"type": "Ready", "status": str(probed and process.receiving)}],
            }
            self._touch(pod)
        for deployment in self.all("Deployment"):
            self._tell(deployment)

    def leave_one_busy(self) -> Process:
        """All others end what they have."""
        busy = next(process for process in self.processes.values() if process.in_flight)
        for process in self.processes.values():
            if process is not busy:
                process.in_flight.clear()
        return busy

    def crash(self, pod: str) -> Sequence[tuple[str, str | None]]:
        """A worker dies; what it had goes back. It starts again when its kubelet is up to it."""
        process = self.processes.pop(pod)
        self.objects["Pod", pod]["status"] |= {
            "containerStatuses": [{"name": "worker", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
            "conditions": [{"type": "Ready", "status": "False"}],
        }
        return process.in_flight

    def _pods_of(self, deployment: str) -> Sequence[Object]:
        labels = self.objects["Deployment", deployment]["spec"]["selector"]["matchLabels"]
        return [pod for pod in self.all("Pod") if labels.items() <= pod["metadata"]["labels"].items()]

    def _deletion_order(self, pod: Object) -> tuple[Any, ...]:
        """ActivePodsWithRanks of Kubernetes; among equals the busiest goes first, since that would be the worst."""
        status = pod.get("status") or {}
        running = status.get("phase") == "Running"
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
        cost = int((pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0"))
        process = self.processes.get(pod["metadata"]["name"])
        return running, ready, cost, -len(process.in_flight) if process else 0

    def _judge(self, pod: str, how: str) -> None:
        process = self.processes.get(pod)
        if process is not None and (process.receiving or process.in_flight):
            self.violations.append(f"{pod} was {how} while it had {len(process.in_flight)} in flight")

    def _make_pod(self, deployment: Object) -> None:
        self._pods += 1
        template = copy.deepcopy(deployment["spec"]["template"])
        name = f"{deployment['metadata']['name']}-{self._pods}"
        owner = {"uid": deployment["metadata"]["uid"], "kind": "Deployment"}
        metadata = {**template["metadata"], "name": name, "namespace": NAMESPACE, "ownerReferences": [owner]}
        self._store({"kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}})

    def _tell(self, deployment: Object) -> None:
        pods = self._pods_of(deployment["metadata"]["name"])
        ready = sum(
            1
            for pod in pods
            for c in pod["status"].get("conditions", [])
            if c["type"] == "Ready" and c["status"] == "True"
        )
        told = {"replicas": len(pods), "updatedReplicas": len(pods), "availableReplicas": ready}
        if len(pods) == deployment["spec"]["replicas"]:
            told["observedGeneration"] = deployment["metadata"]["generation"]
        else:
            told["observedGeneration"] = deployment.get("status", {}).get("observedGeneration", 0)
        if told != deployment.get("status"):
            deployment["status"] = told
            self._touch(deployment)


def _process(pod: Object) -> Process:
    """Which its kubelet starts: it reads what is told of the pod at that moment."""
    env = {each["name"]: each for each in pod["spec"]["containers"][0]["env"]}
    path = env["PERDURE_DELETION_COST"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == f"metadata.annotations['{DELETION_COST}']"
    chosen = DELETION_COST in (pod["metadata"].get("annotations") or {})
    return Process(env["PERDURE_BUILD"]["value"], int(env["PERDURE_SLOTS"]["value"]), receiving=not chosen)


class Workers:
    """As the port `Workers`: the address of a pod is its name."""

    def __init__(self, cluster: Cluster, token: str) -> None:
        self._cluster = cluster
        self._token = token

    async def work(self, ip: str) -> Work | None:
        process = self._cluster.processes.get(ip)
        if process is None or not process.reachable:
            return None
        return Work(receiving=process.receiving, in_flight=len(process.in_flight), slots=process.slots)

    async def drain(self, ip: str, token: str) -> None:
        self._process(ip, token).receiving = False

    async def resume(self, ip: str, token: str) -> None:
        self._process(ip, token).receiving = True

    def _process(self, ip: str, token: str) -> Process:
        assert token == self._token
        process = self._cluster.processes.get(ip)
        if process is None or not process.reachable:
            raise Unavailable(f"{ip} does not answer")
        return process


def build_label(item: Object) -> str:
    label: str = item["spec"]["selector"]["matchLabels"][BUILD_LABEL]
    return label
