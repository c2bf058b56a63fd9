"""A Perdure in memory, and the operator between it and a cluster."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from perdure_operator.claims import Claims
from perdure_operator.connecting import Connections
from perdure_operator.facts import Failed, Open, Routing, Waiting
from perdure_operator.objects import Key, Object, PoolKind
from perdure_operator.ports import Changed, Unavailable
from perdure_operator.reconcile import Reconciler
from perdure_runtime.pools import TopicBacklog, by_pool
from perdure_schemas import topics
from tests.operator.cluster import NAMESPACE, Cluster, Workers, build_label

TOKEN = "secret"
CONNECTION: Object = {
    "pulsar": {"url": "pulsar://broker:6650"},
    "api": {"url": "http://api:8080", "tokenSecret": {"name": "api", "key": "token"}},
}
_TOPICS = {"task": topics.task_run, "workflow": topics.workflow_run}
Topic = tuple[Literal["task", "workflow"], str, str | None]


class Perdure:
    """As the port `Perdure`: topics, workers that take from them, and runs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.topics: set[Topic] = set()
        self.waiting: Counter[Topic] = Counter()
        self.open: Counter[tuple[str, str | None]] = Counter()
        self.routes: dict[str, Routing] = {}
        self.last: list[Failed] = []
        self.asked_failed = 0
        self.up = True
        self.silence = ""
        self.asked = 0

    async def backlog(self) -> Sequence[Waiting]:
        self._answer()
        flying: Counter[Topic] = Counter()
        for process in self._cluster.processes.values():
            flying.update((self._kind(name), name, build) for name, build in process.in_flight)
        told = [
            TopicBacklog(_TOPICS[kind](name, build), self.waiting[kind, name, build], flying[kind, name, build])
            for kind, name, build in sorted(self.topics, key=str)
        ]
        return [
            Waiting(kind=each.kind, name=each.name, build=each.build, waiting=each.waiting, in_flight=each.in_flight)
            for each in by_pool(told, None, ())
        ]

    async def builds(self) -> Sequence[Open]:
        self._answer()
        counts = {"failed": len(self.last)} if self.last else {}
        return [
            Open(name=name, build=build, counts={"running": number, **counts}, open=number)
            for (name, build), number in self.open.items()
        ]

    async def failed(self, name: str, limit: int) -> Sequence[Failed]:
        self._answer()
        self.asked_failed += 1
        return self.last[:limit]

    async def routing(self, workflow: str) -> Routing:
        self._answer()
        return self.routes.get(workflow, Routing())

    async def route(self, workflow: str, routing: Routing) -> None:
        self._answer()
        assert routing.current is None or ("workflow", workflow, routing.current) in self.topics, "nobody would hear"
        self.routes[workflow] = routing

    async def ensure(self, kind: Literal["task", "workflow"], names: Sequence[str], build: str) -> None:
        self._answer()
        self.topics |= {(kind, name, each) for name in names for each in (None, build)}

    def send(self, kind: Literal["task", "workflow"], name: str, number: int, build: str | None = None) -> None:
        assert (kind, name, build) in self.topics, "what is sent before there is a subscription is lost"
        self.waiting[kind, name, build] += number

    def deliver(self) -> None:
        """Workers that receive take what waits, as far as they have slots."""
        for process in self._cluster.processes.values():
            for topic, number in self.waiting.items():
                if not process.receiving or topic[2] not in {None, process.build}:
                    continue
                taken = min(number, process.slots - len(process.in_flight))
                self.waiting[topic] -= taken
                process.in_flight += [topic[1:]] * taken

    def give_back(self, messages: Sequence[tuple[str, str | None]]) -> None:
        for name, build in messages:
            self.waiting[self._kind(name), name, build] += 1

    def _kind(self, name: str) -> Literal["task", "workflow"]:
        return next(kind for kind, known, _ in self.topics if known == name)

    def _answer(self) -> None:
        self.asked += 1
        if not self.up:
            raise Unavailable("the API does not answer")


class World:
    """One namespace with a connection, and an operator that is told what to look at."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.cluster = Cluster()
        self.perdure = Perdure(self.cluster)
        self.cluster.declare("Connection", "default", CONNECTION)
        secret = base64.b64encode(TOKEN.encode()).decode()
        self.cluster.objects["Secret", "api"] = {"metadata": {"name": "api"}, "data": {"token": secret}}
        self.restart()

    def restart(self) -> None:
        """The operator forgets all that it kept in memory."""
        connections = Connections(self.cluster, lambda url, namespace, token: self.perdure, lambda: self.now)
        claims = Claims(self.cluster, connections, "*")
        self.reconciler = Reconciler(
            self.cluster, connections, claims, Workers(self.cluster, TOKEN), now=lambda: self.now
        )

    async def look(self, kind: PoolKind, name: str) -> float | None:
        try:
            return await self.reconciler.reconcile(Key(kind, NAMESPACE, name))
        except (Changed, Unavailable):
            return 1.0

    async def rounds(self, kind: PoolKind, name: str, number: int, *, seconds: float = 3.0) -> None:
        """Everybody does what they have to, again and again."""
        for _ in range(number):
            self.now += seconds
            await self.look(kind, name)
            self.cluster.control()
            self.cluster.run_pods()
            self.perdure.deliver()

    def status(self, kind: PoolKind, name: str) -> Object:
        found: Object = self.cluster.objects[kind, name].get("status") or {}
        return found

    def condition(self, kind: PoolKind, name: str, type_: str) -> tuple[str, str]:
        found = next(c for c in self.status(kind, name)["conditions"] if c["type"] == type_)
        return found["status"], found["reason"]

    def replicas(self) -> dict[str, int]:
        """By build."""
        return {build_label(item): item["spec"]["replicas"] for item in self.cluster.all("Deployment")}
