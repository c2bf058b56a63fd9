"""operator/rbac.yaml has what the operator does, and nothing that it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from perdure_operator.kubernetes import _RESOURCES
from perdure_operator.objects import Key, Kind, Object
from perdure_operator.rollout import DELETED_AFTER_S
from tests.operator.cluster import Cluster
from tests.operator.world import World
from tests.repo import tree

RULES: dict[str, list[dict[str, list[str]]]] = yaml.safe_load((tree.ROOT / "operator/rbac.yaml").read_text("utf-8"))
WATCHED: list[Kind] = ["Worker", "Workflow", "Connection", "Deployment", "Pod"]
POOL: Object = {"image": "shop:1", "scaling": {"cooldownSeconds": 1}}


class Recording(Cluster):
    def __init__(self) -> None:
        super().__init__()
        self.done: set[tuple[str, Kind, str]] = set()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        found = await super().get(kind, namespace, name)
        self.done.add(("get", kind, ""))
        return found

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Object]:
        self.done.add(("list", kind, ""))
        return await super().list(kind, namespace, labels)

    async def apply(self, item: Object) -> Object:
        self.done |= {("patch", item["kind"], ""), ("create", item["kind"], "")}
        return await super().apply(item)

    async def apply_status(self, key: Key, status: Object) -> None:
        self.done.add(("patch", key.kind, "/status"))
        await super().apply_status(key, status)

    async def set_replicas(self, key: Key, replicas: int) -> None:
        self.done.add(("patch", key.kind, "/scale"))
        await super().set_replicas(key, replicas)

    async def scale(self, namespace: str, deployment: str, replicas: int, version: str) -> None:
        self.done.add(("patch", "Deployment", ""))
        await super().scale(namespace, deployment, replicas, version)

    async def annotate(self, namespace: str, pod: str, annotation: str, value: str | None) -> None:
        self.done.add(("patch", "Pod", ""))
        await super().annotate(namespace, pod, annotation, value)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self.done.add(("delete", kind, ""))
        await super().delete(kind, namespace, name)


def granted(*sections: str) -> set[tuple[str, str, str]]:
    """(verb, group, resource)"""
    return {
        (verb, group, resource)
        for section in sections
        for rule in RULES[section]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def named(done: tuple[str, Kind, str]) -> tuple[str, str, str]:
    verb, kind, part = done
    info: Any = _RESOURCES[kind]._api_info
    return verb, info.resource.group, info.plural + part


@pytest.mark.asyncio
@pytest.mark.parametrize(("provider", "sections"), [
    ("builtin", ("namespaced",)), ("keda", ("namespaced", "keda")),
])  # fmt: skip
async def test_the_rules_are_what_is_done(provider: str, sections: tuple[str, ...]) -> None:
    world = World()
    recording = Recording()
    recording.objects = world.cluster.objects
    recording.not_served.clear()
    if provider == "builtin":
        recording.forbidden |= {"ScaledObject", "TriggerAuthentication"}
    world.cluster = world.perdure._cluster = recording
    world.restart()
    for kind, names in (("Worker", {"tasks": ["crop"]}), ("Workflow", {"workflow": "order"})):
        scaled = {**POOL, **names, "scaling": {**POOL["scaling"], "provider": provider}}
        recording.declare(kind, "it", scaled)  # type: ignore[arg-type]
        await world.rounds(kind, "it", 2)  # type: ignore[arg-type]
        recording.declare(kind, "it", {**POOL, **names, "image": "shop:2"})  # type: ignore[arg-type]
        await world.rounds(kind, "it", int(DELETED_AFTER_S / 3) + 20)  # type: ignore[arg-type]
    done = {named(each) for each in recording.done}
    done |= {named((verb, kind, "")) for kind in WATCHED for verb in ("get", "list", "watch")}
    done |= {("update", "perdure.dev", f"{plural}/finalizers") for plural in ("workers", "workflows")}
    assert granted(*sections) == done
