"""Whatever happens in whatever order: no busy pod is deleted, and once all is quiet it is as declared and at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perdure_operator.objects import BUILD_LABEL, MANAGED_BY, POOL_KINDS, Object, PoolKind, label_of
from tests.operator.world import World

COOLDOWN_S = 2
_QUIET_ROUNDS = 40
"""Of 3 s: the cool-down, the wait for the routing record, the time at zero, and the steps of each, for three builds."""

_LABELS = (MANAGED_BY, BUILD_LABEL, *map(label_of, POOL_KINDS))
"""Of a Deployment, by which it is found."""


class Declared(RuleBasedStateMachine):
    kind: PoolKind
    served: str

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.declare(1, 0)
        self.do(self.world.rounds(self.kind, "pool", 2))
        self.send(6, None)
        self.do(self.world.rounds(self.kind, "pool", 3))

    def do(self, doing: Coroutine[Any, Any, Any]) -> None:
        with closing(asyncio.new_event_loop()) as loop:
            loop.run_until_complete(doing)

    def spec(self, image: int, least: int) -> Object:
        scaling = {"min": least, "max": 4, "cooldownSeconds": COOLDOWN_S}
        return {"image": f"shop:{image}", "slots": 2, "scaling": scaling, **self.names()}

    def names(self) -> Object:
        raise NotImplementedError

    def declare(self, image: int, least: int, *, spoilt: bool = False) -> None:
        """`spoilt`: with a variable that is the operator's."""
        env: Object = {"env": [{"name": "PERDURE_URL", "value": "http://mine"}]} if spoilt else {}
        self.world.cluster.declare(self.kind, "pool", {**self.spec(image, least), **env})

    def send(self, number: int, build: str | None) -> None:
        if (self.served, "name", build) in self.world.perdure.topics:
            self.world.perdure.send(self.served, "name", number, build)  # type: ignore[arg-type]

    def teardown(self) -> None:
        world = self.world
        world.perdure.up = world.cluster.startable = True
        self.declare(1, 1)
        for _ in range(_QUIET_ROUNDS):
            for process in world.cluster.processes.values():
                process.in_flight.clear()
                process.reachable = True
            self.runs_end()
            self.do(world.rounds(self.kind, "pool", 1))
        assert world.cluster.violations == []
        assert not any(world.perdure.waiting.values())
        assert list(world.replicas().values()) == [1]
        assert world.status(self.kind, "pool")["currentBuild"] == next(iter(world.replicas()))
        assert world.condition(self.kind, "pool", "Progressing") == ("False", "Complete")
        world.cluster.writes.clear()
        self.do(world.rounds(self.kind, "pool", 5))
        assert world.cluster.writes == []

    def runs_end(self) -> None:
        """Of workflows."""


class Pool(Declared):
    """What may happen to it."""

    @rule(seconds=st.sampled_from([0, 1, 3]))
    def look(self, seconds: int) -> None:
        self.world.now += seconds
        self.do(self.world.look(self.kind, "pool"))

    @rule(number=st.integers(1, 4))
    def time_passes(self, number: int) -> None:
        self.do(self.world.rounds(self.kind, "pool", number))

    @rule()
    def control(self) -> None:
        self.world.cluster.control()

    @rule()
    def run_pods(self) -> None:
        self.world.cluster.run_pods()

    @rule()
    def deliver(self) -> None:
        self.world.perdure.deliver()

    @rule(number=st.integers(1, 6))
    def work_comes(self, number: int) -> None:
        self.send(number, None)

    @rule(data=st.data())
    @precondition(lambda self: any(p.in_flight for p in self.world.cluster.processes.values()))
    def work_ends(self, data: st.DataObject) -> None:
        busy = [name for name, process in sorted(self.world.cluster.processes.items()) if process.in_flight]
        self.world.cluster.processes[data.draw(st.sampled_from(busy))].in_flight.clear()

    @rule(data=st.data())
    @precondition(lambda self: self.world.cluster.processes)
    def worker_crashes(self, data: st.DataObject) -> None:
        pod = data.draw(st.sampled_from(sorted(self.world.cluster.processes)))
        self.world.perdure.give_back(self.world.cluster.crash(pod))

    @rule(data=st.data())
    @precondition(lambda self: self.world.cluster.processes)
    def probe_is_cut(self, data: st.DataObject) -> None:
        process = self.world.cluster.processes[data.draw(st.sampled_from(sorted(self.world.cluster.processes)))]
        process.reachable = not process.reachable

    @rule(up=st.booleans())
    def api(self, up: bool) -> None:
        self.world.perdure.up = up

    @rule()
    def operator_restarts(self) -> None:
        self.world.restart()

    @rule(image=st.integers(1, 3), least=st.integers(0, 2), spoilt=st.sampled_from([False, False, True]))
    def spec_changes(self, image: int, least: int, *, spoilt: bool) -> None:
        self.declare(image, least, spoilt=spoilt)

    @rule(data=st.data(), label=st.sampled_from(_LABELS), value=st.sampled_from([None, "other"]))
    @precondition(lambda self: self.world.cluster.all("Deployment"))
    def label_drifts(self, data: st.DataObject, label: str, value: str | None) -> None:
        """Another tool owns it now."""
        names = [item["metadata"]["name"] for item in self.world.cluster.all("Deployment")]
        self.world.cluster.relabel("Deployment", data.draw(st.sampled_from(names)), label, value)

    @rule(startable=st.booleans())
    def images(self, startable: bool) -> None:
        self.world.cluster.startable = startable

    @invariant()
    def no_busy_pod_was_deleted(self) -> None:
        assert self.world.cluster.violations == []


class Tasks(Pool):
    kind: PoolKind = "Worker"
    served = "task"

    def names(self) -> Object:
        return {"tasks": ["name"]}


class Runs(Pool):
    kind: PoolKind = "Workflow"
    served = "workflow"

    def names(self) -> Object:
        return {"workflow": "name"}

    @rule()
    def run_begins(self) -> None:
        """On the build that the routing record says."""
        route = self.world.perdure.routes.get("name")
        if route is not None:
            self.world.perdure.open["name", route.current] += 1
            self.send(1, route.current)

    @rule(data=st.data())
    @precondition(lambda self: any(self.world.perdure.open.values()))
    def run_goes_on(self, data: st.DataObject) -> None:
        builds = sorted(build for (_, build), number in self.world.perdure.open.items() if number and build)
        build = data.draw(st.sampled_from(builds))
        assert build in self.world.replicas(), "nobody is there to go on with it"
        self.send(1, build)

    @rule(data=st.data())
    @precondition(lambda self: any(self.world.perdure.open.values()))
    def run_ends(self, data: st.DataObject) -> None:
        topics = sorted((topic for topic, number in self.world.perdure.open.items() if number), key=str)
        self.world.perdure.open[data.draw(st.sampled_from(topics))] -= 1

    def runs_end(self) -> None:
        self.world.perdure.open.clear()


_PHASES = [phase for phase in Phase if phase is not Phase.explain]
"""To explain a failure takes minutes, in which the test's time is up, and then nothing is told of it."""
Tasks.TestCase.settings = settings(max_examples=20, stateful_step_count=40, deadline=None, phases=_PHASES)
Runs.TestCase.settings = settings(max_examples=20, stateful_step_count=40, deadline=None, phases=_PHASES)
TestTasks = Tasks.TestCase
TestRuns = Runs.TestCase
