"""What KEDA is asked to do, and that the operator carries out what KEDA says by its own steps."""

from __future__ import annotations

import copy
from math import ceil
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from perdure_operator.differences import differs
from perdure_operator.keda import scaled_object, trigger_authentication
from perdure_operator.objects import Object, PoolKind
from perdure_operator.ports import Refused, Unavailable
from tests.operator.cluster import NAMESPACE
from tests.operator.test_operator_desired import CONNECTION, pool
from tests.operator.world import World

SCALING: Object = {"provider": "keda", "max": 5, "cooldownSeconds": 30}
WORKER: Object = {"tasks": ["crop"], "image": "shop:1", "slots": 2, "scaling": SCALING}
WORKFLOW: Object = {"workflow": "order", "image": "shop:1", "slots": 2, "scaling": SCALING}


def test_the_resource_itself_is_scaled_by_what_its_names_need() -> None:
    given = pool(scaling={"provider": "keda", "min": 1, "max": 7, "targetUtilization": 70, "cooldownSeconds": 90})
    item = scaled_object(given, CONNECTION, "b1", 10)
    assert (item["apiVersion"], item["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    assert (item["metadata"]["name"], item["metadata"]["namespace"]) == ("crop-worker", "shop")
    assert item["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert item["spec"] == {
        "scaleTargetRef": {"apiVersion": "perdure.dev/v1alpha1", "kind": "Worker", "name": "crop"},
        "pollingInterval": 10,
        "initialCooldownPeriod": 90,
        "cooldownPeriod": 90,
        "minReplicaCount": 1,
        "maxReplicaCount": 7,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 90}}}},
        "triggers": [
            {
                "type": "metrics-api",
                "metricType": "AverageValue",
                "metadata": {
                    "url": "http://api:8080/api/v1/namespaces/prod/backlog?kind=task&name=crop&name=scale&build=b1",
                    "valueLocation": "total",
                    "targetValue": "7",
                    "activationTargetValue": "0",
                    "authMode": "bearer",
                },
                "authenticationRef": {"name": "crop-worker"},
            }
        ],
    }


def test_the_token_is_that_of_the_connection() -> None:
    item = trigger_authentication(pool(), CONNECTION)
    assert (item["apiVersion"], item["kind"]) == ("keda.sh/v1alpha1", "TriggerAuthentication")
    assert item["metadata"]["name"] == "crop-worker"
    assert item["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert item["spec"] == {"secretTargetRef": [{"parameter": "token", "name": "api", "key": "token"}]}


@pytest.mark.parametrize(
    ("slots", "percent", "target"), [(1, 80, "0.8"), (3, 33, "0.99"), (9_999, 99, "9899.01"), (10_000, 100, "10000")]
)
def test_a_target_may_be_less_than_one_slot(slots: int, percent: int, target: str) -> None:
    given = pool("Workflow", name="a & b", scaling={"provider": "keda", "targetUtilization": percent})
    (trigger,) = scaled_object(given, CONNECTION, "b", slots)["spec"]["triggers"]
    assert trigger["metadata"]["targetValue"] == target


def test_all_names_are_asked_for_and_a_window_is_no_longer_than_kubernetes_takes() -> None:
    given = pool(tasks=["a-b", "_c.d"], scaling={"provider": "keda", "cooldownSeconds": 86_400})
    spec = scaled_object(given, CONNECTION, "b", 1)["spec"]
    query = parse_qsl(urlsplit(spec["triggers"][0]["metadata"]["url"]).query)
    assert query == [("kind", "task"), ("name", "_c.d"), ("name", "a-b"), ("build", "b")]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 3_600
    assert spec["cooldownPeriod"] == 86_400


def test_what_keda_adds_is_no_difference_and_what_others_change_is() -> None:
    wanted = scaled_object(pool(), CONNECTION, "b", 1)
    found = copy.deepcopy(wanted)
    found["metadata"]["labels"]["scaledobject.keda.sh/name"] = "crop-worker"
    found["metadata"]["finalizers"] = ["finalizer.keda.sh"]
    found["status"] = {"conditions": []}
    assert not differs(wanted, found)
    found["spec"]["maxReplicaCount"] = 1_000
    assert differs(wanted, found)


class Keda:
    """As its documentation has it: to and from zero by itself, the rest by a HorizontalPodAutoscaler."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._active_at = world.now
        self._asked: list[tuple[float, int]] = []

    async def rounds(self, kind: PoolKind, name: str, number: int) -> None:
        for _ in range(number):
            await self._world.rounds(kind, name, 1)
            await self._act()

    async def _act(self) -> None:
        world = self._world
        for item in world.cluster.all("ScaledObject"):
            spec = item["spec"]
            target: Any = spec["scaleTargetRef"]
            replicas = world.cluster.objects[target["kind"], target["name"]]["spec"]["replicas"]
            total = await self._total(spec["triggers"][0]["metadata"]["url"])
            wanted = self._wanted(spec, total, replicas)
            if wanted != replicas:
                found = world.cluster.objects[target["kind"], target["name"]]
                world.cluster.declare(target["kind"], target["name"], {**found["spec"], "replicas": wanted})

    async def _total(self, url: str) -> int:
        query = parse_qsl(urlsplit(url).query)
        names, (build,) = [value for key, value in query if key == "name"], [v for key, v in query if key == "build"]
        return sum(
            each.waiting + each.in_flight
            for each in await self._world.perdure.backlog()
            if each.kind == dict(query)["kind"] and each.name in names and each.build in (None, build)
        )

    def _wanted(self, spec: Object, total: int, replicas: int) -> int:
        now, metadata = self._world.now, spec["triggers"][0]["metadata"]
        active = total > float(metadata["activationTargetValue"])
        if active:
            self._active_at = now
        if replicas == 0:
            return max(1, spec["minReplicaCount"]) if active else 0
        if not active and spec["minReplicaCount"] == 0 and now - self._active_at > spec["cooldownPeriod"]:
            return 0
        window = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        need = ceil(total / float(metadata["targetValue"]))
        need = max(1, spec["minReplicaCount"], min(spec["maxReplicaCount"], need))
        self._asked = [(at, n) for at, n in self._asked if at > now - window["stabilizationWindowSeconds"]]
        self._asked.append((now, need))
        return need if need >= replicas else min(replicas, max(n for _, n in self._asked))


def with_keda(world: World) -> Keda:
    world.cluster.not_served.clear()
    return Keda(world)


@pytest.mark.asyncio
async def test_keda_wakes_a_pool_and_no_busy_pod_is_lost_when_it_lets_it_sleep() -> None:
    world = World()
    keda = with_keda(world)
    world.cluster.declare("Worker", "crop", WORKER)
    await keda.rounds("Worker", "crop", 3)
    (build,) = world.replicas()
    assert world.replicas() == {build: 0}
    assert world.cluster.objects["Worker", "crop"]["spec"]["replicas"] == 0, "else KEDA has no scale to read"
    assert world.condition("Worker", "crop", "Accepted") == ("True", "Accepted")
    world.perdure.send("task", "crop", 7)
    await keda.rounds("Worker", "crop", 6)
    assert world.replicas() == {build: 5}, "7 messages on pods of 2 slots of which 80 % are to be used"
    busy = world.cluster.leave_one_busy()
    await keda.rounds("Worker", "crop", 30)
    assert world.replicas() == {build: 2}, "2 in flight are more than 80 % of one pod"
    assert busy in world.cluster.processes.values()
    busy.in_flight.clear()
    await keda.rounds("Worker", "crop", 30)
    assert world.replicas() == {build: 0}
    assert world.cluster.violations == []


@pytest.mark.asyncio
async def test_at_rest_nothing_is_written_and_drift_is_put_right() -> None:
    world = World()
    with_keda(world)
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 4)
    world.cluster.writes.clear()
    world.restart()
    await world.rounds("Workflow", "order", 3)
    assert world.cluster.writes == []
    (scaled,), (authentication,) = world.cluster.all("ScaledObject"), world.cluster.all("TriggerAuthentication")
    scaled["spec"]["triggers"][0]["metadata"]["targetValue"] = "1000"
    world.cluster.remove("TriggerAuthentication", authentication["metadata"]["name"])
    await world.rounds("Workflow", "order", 1)
    assert scaled["spec"]["triggers"][0]["metadata"]["targetValue"] == "1.6"
    assert len(world.cluster.all("TriggerAuthentication")) == 1
    world.cluster.remove("Workflow", "order")
    assert world.cluster.all("ScaledObject") == world.cluster.all("TriggerAuthentication") == []


@pytest.mark.asyncio
@pytest.mark.parametrize("restarted", [False, True])
async def test_keda_is_handed_what_is_there_and_leaves_it_there(restarted: bool) -> None:
    world = World()
    keda = with_keda(world)
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {"cooldownSeconds": 30}})
    await world.rounds("Worker", "crop", 2)
    world.perdure.send("task", "crop", 4)
    await world.rounds("Worker", "crop", 2)
    (build,) = world.replicas()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.look("Worker", "crop")
    assert world.cluster.objects["Worker", "crop"]["spec"]["replicas"] == world.replicas()[build] == 3
    await keda.rounds("Worker", "crop", 2)
    assert world.replicas() == {build: 3}
    if restarted:
        world.restart()
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {"cooldownSeconds": 30}})
    await world.look("Worker", "crop")
    assert world.cluster.all("ScaledObject") == world.cluster.all("TriggerAuthentication") == []
    assert world.replicas() == {build: 3}
    world.cluster.reads.clear()
    await world.look("Worker", "crop")
    assert "get PodDisruptionBudget" in world.cluster.reads
    assert "get ScaledObject" not in world.cluster.reads, "what is left is left"


@pytest.mark.asyncio
async def test_an_object_of_somebody_else_is_not_removed() -> None:
    world = World()
    with_keda(world)
    metadata = {"name": "crop-worker", "namespace": NAMESPACE}
    world.cluster.objects["ScaledObject", "crop-worker"] = {"kind": "ScaledObject", "metadata": metadata, "spec": {}}
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {"cooldownSeconds": 30}})
    await world.rounds("Worker", "crop", 3)
    assert len(world.cluster.all("ScaledObject")) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("forbidden", "reason", "advice"),
    [(False, "KedaNotInstalled", "install it"), (True, "KedaForbidden", "operator.keda.enabled")],
)
async def test_without_keda_the_resource_says_so_and_all_else_goes_on(
    forbidden: bool, reason: str, advice: str
) -> None:
    world = World()
    if forbidden:
        world.cluster.forbidden |= {"ScaledObject", "TriggerAuthentication"}
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 3)
    (build,) = world.replicas()
    assert world.condition("Workflow", "order", "Accepted") == ("False", reason)
    message = next(c["message"] for c in world.status("Workflow", "order")["conditions"] if c["type"] == "Accepted")
    assert advice in message
    assert "scaling.provider to builtin" in message
    assert world.condition("Workflow", "order", "Available") == ("True", "ScaledToZero")
    assert world.perdure.routes["order"].current == build, "new runs have a build"
    assert "replicas" not in world.cluster.objects["Workflow", "order"]["spec"], "so that builtin is taken back"
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "replicas": 2})
    await world.rounds("Workflow", "order", 3)
    assert world.replicas() == {build: 2}
    world.cluster.forbidden.clear()
    with_keda(world)
    await world.rounds("Workflow", "order", 1)
    assert world.condition("Workflow", "order", "Accepted") == ("True", "Accepted")


@pytest.mark.asyncio
@pytest.mark.parametrize("raised", [Refused("no such field"), Unavailable("a webhook does not answer")])
async def test_what_kubernetes_has_against_it_is_told_and_all_else_goes_on(
    monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    world = World()
    with_keda(world)
    apply = world.cluster.apply

    async def refuse(item: Object) -> Object:
        if item["kind"] == "ScaledObject":
            raise raised
        return await apply(item)

    monkeypatch.setattr(world.cluster, "apply", refuse)
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "replicas": 2})
    await world.rounds("Workflow", "order", 3)
    assert world.condition("Workflow", "order", "Accepted") == ("False", "RejectedByKubernetes")
    assert list(world.replicas().values()) == [2]
    assert world.perdure.routes["order"].current is not None


@pytest.mark.asyncio
async def test_a_new_build_is_what_keda_asks_for_once_it_is_current() -> None:
    world = World()
    with_keda(world)
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "replicas": 1})
    await world.rounds("Workflow", "order", 3)
    (old,) = world.replicas()

    def asked() -> tuple[str, str]:
        (scaled,) = world.cluster.all("ScaledObject")
        metadata = scaled["spec"]["triggers"][0]["metadata"]
        return dict(parse_qsl(urlsplit(metadata["url"]).query))["build"], metadata["targetValue"]

    assert asked() == (old, "1.6")
    world.cluster.startable = False
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "replicas": 1, "slots": 4})
    await world.rounds("Workflow", "order", 3)
    assert asked() == (old, "1.6"), "the new one is not available"
    world.cluster.startable = True
    await world.rounds("Workflow", "order", 3)
    (new,) = set(world.replicas()) - {old}
    assert asked() == (new, "3.2")
