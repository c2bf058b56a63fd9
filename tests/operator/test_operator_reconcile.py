"""Whole looks at resources, on a cluster in memory."""

from __future__ import annotations

import base64

import pytest

from perdure_operator.facts import Failed, Routing, RunDefaults
from perdure_operator.objects import Key, Object
from perdure_operator.ports import Unavailable
from perdure_operator.reconcile import ACTIVE_S, RESYNC_S
from perdure_operator.rollout import DELETED_AFTER_S, ROUTING_KEPT_S
from tests.operator.cluster import NAMESPACE
from tests.operator.world import World

pytestmark = pytest.mark.asyncio

SCALING: Object = {"cooldownSeconds": 30}
WORKER: Object = {"tasks": ["crop"], "image": "shop:1", "slots": 2, "scaling": SCALING}
WORKFLOW: Object = {"workflow": "order", "image": "shop:1", "slots": 2, "scaling": SCALING}


async def test_a_pool_at_zero_has_all_but_pods_and_then_nothing_is_written() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    assert await world.look("Worker", "crop") is not None
    (build,) = world.replicas()
    assert world.replicas() == {build: 0}
    assert {kind for kind, _ in world.cluster.objects} >= {"Deployment", "ServiceAccount", "PodDisruptionBudget"}
    assert world.perdure.topics == {("task", "crop", None), ("task", "crop", build)}
    await world.rounds("Worker", "crop", 2)
    assert world.condition("Worker", "crop", "Available") == ("True", "ScaledToZero")
    world.cluster.writes.clear()
    await world.rounds("Worker", "crop", 3, seconds=60)
    assert await world.look("Worker", "crop") == RESYNC_S
    assert world.cluster.writes == []
    world.restart()
    await world.rounds("Worker", "crop", 3)
    assert world.cluster.writes == []


async def test_work_wakes_a_pool_and_its_end_lets_it_sleep_without_a_busy_pod_lost() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 2)
    world.perdure.send("task", "crop", 7)
    await world.look("Worker", "crop")
    (build,) = world.replicas()
    assert world.replicas() == {build: 5}, "7 messages on pods of 2 slots of which 80 % are to be used"
    await world.rounds("Worker", "crop", 3)
    assert world.status("Worker", "crop")["inFlight"] == 7
    assert await world.look("Worker", "crop") == ACTIVE_S
    busy = world.cluster.leave_one_busy()
    await world.rounds("Worker", "crop", 9)
    assert world.replicas() == {build: 5}, "the cool-down is not over"
    await world.rounds("Worker", "crop", 20)
    assert 1 <= world.replicas()[build] < 5
    assert busy in world.cluster.processes.values()
    busy.in_flight.clear()
    await world.rounds("Worker", "crop", 30)
    assert world.replicas() == {build: 0}
    assert world.cluster.violations == []


async def test_names_of_which_one_extends_another_with_a_dot_each_get_their_pods() -> None:
    world = World()
    for resource, task in (("image", "image"), ("resize", "image.resize")):
        world.cluster.declare("Worker", resource, {**WORKER, "tasks": [task]})
        await world.rounds("Worker", resource, 2)
    (build,) = {each for kind, name, each in world.perdure.topics if name == "image.resize" and each}
    for each, expected in ((None, 1), (build, 2)):
        world.perdure.send("task", "image.resize", 1, each)
        await world.look("Worker", "resize")
        await world.look("Worker", "image")
        assert world.replicas()[build] == expected
    assert sorted(world.replicas().values()) == [0, 2]
    assert [world.status("Worker", name)["waiting"] for name in ("image", "resize")] == [0, 2]


@pytest.mark.parametrize("label", ["app.kubernetes.io/managed-by", "perdure.dev/worker", "perdure.dev/build"])
@pytest.mark.parametrize("value", [None, "argocd"])
async def test_a_label_that_another_tool_takes_costs_no_busy_pod(label: str, value: str | None) -> None:
    world = World()
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {"max": 5, "cooldownSeconds": 300}})
    await world.rounds("Worker", "crop", 2)
    world.perdure.send("task", "crop", 10)
    await world.rounds("Worker", "crop", 5)
    (build,) = world.replicas()
    for process in world.cluster.processes.values():
        del process.in_flight[1:]
    ((_, name),) = [key for key in world.cluster.objects if key[0] == "Deployment"]
    world.cluster.relabel("Deployment", name, label, value)
    await world.rounds("Worker", "crop", 3)
    assert world.replicas() == {build: 5}
    assert world.cluster.violations == []
    labels = world.cluster.objects["Deployment", name]["metadata"]["labels"]
    assert labels[label] == {"app.kubernetes.io/managed-by": "perdure-operator", "perdure.dev/worker": "crop"}.get(
        label, build
    )


async def test_an_old_build_whose_label_another_tool_takes_serves_its_runs_and_then_goes() -> None:
    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.look("Workflow", "order")
    (old,) = world.replicas()
    world.perdure.open["order", old] = 1
    ((_, name),) = [key for key in world.cluster.objects if key[0] == "Deployment"]
    world.cluster.relabel("Deployment", name, "app.kubernetes.io/managed-by", "argocd")
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "image": "shop:2"})
    await world.rounds("Workflow", "order", 4)
    world.perdure.send("workflow", "order", 1, old)
    await world.rounds("Workflow", "order", 3)
    assert world.replicas()[old] == 1
    for process in world.cluster.processes.values():
        process.in_flight.clear()
    del world.perdure.open["order", old]
    await world.rounds("Workflow", "order", int((DELETED_AFTER_S + ROUTING_KEPT_S) / 3) + 8)
    assert old not in world.replicas()


async def test_a_build_that_got_the_label_of_another_resource_is_left_to_its_own() -> None:
    world = World()
    for name in ("crop", "order"):
        world.cluster.declare("Workflow", name, {**WORKFLOW, "workflow": name})
        await world.look("Workflow", name)
    ((_, order),) = [key for key in world.cluster.objects if key[0] == "Deployment" and key[1].startswith("order")]
    world.cluster.relabel("Deployment", order, "perdure.dev/workflow", "crop")
    await world.rounds("Workflow", "crop", int((DELETED_AFTER_S + ROUTING_KEPT_S) / 3) + 8)
    assert ("Deployment", order) in world.cluster.objects


async def test_while_the_need_is_unknown_nothing_goes() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 2)
    world.perdure.send("task", "crop", 4)
    await world.rounds("Worker", "crop", 3)
    (build,) = world.replicas()
    for process in world.cluster.processes.values():
        process.in_flight.clear()
    world.perdure.up = False
    await world.rounds("Worker", "crop", 50)
    assert world.replicas() == {build: 3}
    assert world.condition("Worker", "crop", "Progressing") == ("Unknown", "NeedUnknown")
    world.perdure.up = True
    await world.rounds("Worker", "crop", 9)
    assert world.replicas() == {build: 3}, "what was not known counts for no cool-down"
    await world.rounds("Worker", "crop", 20)
    assert world.replicas() == {build: 0}


async def test_an_api_that_is_silent_is_not_waited_for() -> None:
    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 2)
    world.perdure.silence = "GET /backlog: no answer"
    world.perdure.asked = 0
    await world.rounds("Workflow", "order", 3)
    assert world.perdure.asked == 0
    assert world.condition("Workflow", "order", "Progressing") == ("Unknown", "NeedUnknown")
    world.perdure.silence = ""
    await world.rounds("Workflow", "order", 3)
    assert world.condition("Workflow", "order", "Progressing") == ("False", "Complete")


@pytest.mark.parametrize(("refused", "reason"), [("ensure", "TopicsNotMade"), ("route", "NotRouted")])
async def test_what_the_api_refuses_to_do_is_told_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch, refused: str, reason: str
) -> None:
    async def refuse(*_: object) -> None:
        raise Unavailable("400 no such field")

    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    with monkeypatch.context() as refusing:
        refusing.setattr(world.perdure, refused, refuse)
        await world.rounds("Workflow", "order", 5)
    assert world.condition("Workflow", "order", "Progressing") == ("True", reason)
    (progressing,) = [c for c in world.status("Workflow", "order")["conditions"] if c["type"] == "Progressing"]
    assert progressing["message"].endswith(": 400 no such field")
    await world.rounds("Workflow", "order", 3)
    assert world.condition("Workflow", "order", "Progressing") == ("False", "Complete")
    assert world.perdure.routes.keys() == {"order"}


async def test_a_new_build_takes_over_and_the_old_one_goes_when_its_runs_have_ended() -> None:
    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 2)
    (old,) = world.replicas()
    assert world.perdure.routes["order"].current == old
    world.perdure.open["order", old] = 3
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "image": "shop:2"})
    await world.look("Workflow", "order")
    (new,) = set(world.replicas()) - {old}
    assert world.replicas() == {old: 0, new: 1}
    assert world.perdure.routes["order"].current == old, "the new build is not available yet"
    assert world.condition("Workflow", "order", "Progressing") == ("True", "NewBuildNotAvailable")
    await world.rounds("Workflow", "order", 3)
    assert world.perdure.routes["order"].current == new
    assert world.condition("Workflow", "order", "Drained") == ("False", "OldBuildsServeRuns")
    world.perdure.send("workflow", "order", 1, old)
    await world.rounds("Workflow", "order", 3)
    assert world.replicas()[old] == 1, "a run on the old build goes on"
    for process in world.cluster.processes.values():
        process.in_flight.clear()
    del world.perdure.open["order", old]
    await world.rounds("Workflow", "order", int((DELETED_AFTER_S + ROUTING_KEPT_S) / 3) + 8)
    assert set(world.replicas()) == {new}
    assert world.condition("Workflow", "order", "Drained") == ("True", "NoOldBuilds")
    assert world.cluster.violations == []


async def test_going_back_makes_the_old_build_current_at_once() -> None:
    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 2)
    (old,) = world.replicas()
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "image": "shop:2"})
    await world.rounds("Workflow", "order", 4)
    assert world.perdure.routes["order"].current != old
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.look("Workflow", "order")
    assert world.perdure.routes["order"].current == old
    assert world.replicas()[old] == 0, "nothing waits for it"


async def test_defaults_reach_the_routing_record_and_go_from_it_without_another_build() -> None:
    world = World()
    declared = {"runTimeoutSeconds": 60, "retentionSeconds": 86_400}
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "defaults": declared})
    await world.rounds("Workflow", "order", 2)
    (build,) = world.replicas()
    defaults = RunDefaults(run_timeout_ms=60_000, retention_ms=86_400_000)
    assert world.perdure.routes["order"] == Routing(current=build, defaults=defaults)
    world.perdure.up = False
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 2)
    assert world.perdure.routes["order"].defaults == defaults
    world.perdure.up = True
    await world.rounds("Workflow", "order", 1)
    assert world.perdure.routes["order"] == Routing(current=build)
    assert set(world.replicas()) == {build}
    world.perdure.routes["order"] = Routing(current=build, defaults=RunDefaults(retention_ms=1))
    await world.rounds("Workflow", "order", 1)
    assert world.perdure.routes["order"] == Routing(current=build), "what is set by hand does not stay"


async def test_a_build_that_does_not_start_changes_nothing() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {**SCALING, "min": 1}})
    await world.rounds("Worker", "crop", 3)
    (old,) = world.replicas()
    world.cluster.startable = False
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {**SCALING, "min": 1}, "image": "no:such"})
    await world.rounds("Worker", "crop", 20)
    assert world.status("Worker", "crop")["currentBuild"] == old
    assert world.replicas()[old] == 1
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {**SCALING, "min": 1}})
    await world.rounds("Worker", "crop", 30)
    assert world.replicas() == {old: 1}


async def test_a_spec_that_cannot_be_followed_is_told_and_what_runs_goes_on() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", {**WORKER, "scaling": {"min": 1}})
    await world.rounds("Worker", "crop", 3)
    world.cluster.declare("Worker", "crop", {**WORKER, "env": [{"name": "PERDURE_BUILD", "value": "mine"}]})
    await world.rounds("Worker", "crop", 1)
    assert world.condition("Worker", "crop", "Accepted") == ("False", "InvalidSpec")
    assert world.status("Worker", "crop")["observedGeneration"] == 2
    assert list(world.replicas().values()) == [1]


INVALID: Object = {**WORKER, "env": [{"name": "PERDURE_SLOTS", "value": "3"}]}


async def draining(world: World) -> str:
    """A pool of three pods, of which some were told not to receive; its build."""
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 2)
    world.perdure.send("task", "crop", 4)
    await world.rounds("Worker", "crop", 3)
    busy = world.cluster.leave_one_busy()
    for _ in range(30):
        await world.rounds("Worker", "crop", 1)
        if any(not process.receiving for process in world.cluster.processes.values()):
            break
    busy.in_flight.clear()
    (build,) = world.replicas()
    assert world.replicas() == {build: 3}
    return build


def spoil(world: World, what: str) -> None:
    if what == "spec":
        world.cluster.declare("Worker", "crop", INVALID)
    else:
        del world.cluster.objects["Secret", "api"]
        world.now += 60


@pytest.mark.parametrize(("what", "reason"), [("spec", "InvalidSpec"), ("secret", "SecretNotFound")])
async def test_while_a_spec_cannot_be_followed_the_one_before_is(what: str, reason: str) -> None:
    world = World()
    build = await draining(world)
    spoil(world, what)
    await world.rounds("Worker", "crop", 30)
    assert world.replicas() == {build: 0}, "it goes down as it would have"
    assert world.status("Worker", "crop")["replicas"] == 0
    world.perdure.send("task", "crop", 5)
    await world.rounds("Worker", "crop", 3)
    assert world.replicas() == {build: 4}
    assert world.status("Worker", "crop")["inFlight"] == 5
    assert world.condition("Worker", "crop", "Accepted") == ("False", reason)
    assert list(world.reconciler.pools) == [Key("Worker", NAMESPACE, "crop")], "it is still woken"
    generations = {c["type"]: c["observedGeneration"] for c in world.status("Worker", "crop")["conditions"]}
    declared = world.cluster.objects["Worker", "crop"]["metadata"]["generation"]
    assert generations == {"Accepted": declared, "Available": 1, "Progressing": 1, "Drained": 1}
    await world.rounds("Worker", "crop", 3)
    world.cluster.writes.clear()
    await world.rounds("Worker", "crop", 3)
    assert world.cluster.writes == []


async def test_while_a_spec_cannot_be_followed_its_routing_record_is_left() -> None:
    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 2)
    (build,) = world.replicas()
    world.cluster.declare("Workflow", "order", {**WORKFLOW, "env": INVALID["env"]})
    world.perdure.routes["order"] = other = Routing(current="another")
    await world.rounds("Workflow", "order", 3)
    assert world.perdure.routes["order"] == other
    assert world.condition("Workflow", "order", "Progressing") == ("True", "NotRouted")
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 3)
    assert world.perdure.routes["order"].current == build
    assert world.condition("Workflow", "order", "Progressing") == ("False", "Complete")


async def test_replicas_of_another_scaler_are_followed_also_while_the_spec_cannot_be() -> None:
    world = World()
    outside: Object = {**WORKER, "scaling": {"provider": "none"}}
    world.cluster.declare("Worker", "crop", {**outside, "replicas": 1})
    await world.rounds("Worker", "crop", 3)
    world.cluster.declare("Worker", "crop", {**outside, "replicas": 3, "env": INVALID["env"]})
    await world.rounds("Worker", "crop", 3)
    assert list(world.replicas().values()) == [3]


async def test_what_was_drained_is_freed_where_nobody_knows_the_spec_of_before() -> None:
    world = World()
    build = await draining(world)
    spoil(world, "spec")
    world.restart()
    await world.rounds("Worker", "crop", 4)
    assert world.replicas() == {build: 3}
    assert all(process.receiving for process in world.cluster.processes.values())
    world.cluster.remove("Pod", world.cluster.all("Pod")[0]["metadata"]["name"])
    world.perdure.send("task", "crop", 2)
    world.perdure.deliver()
    await world.look("Worker", "crop")
    status = world.status("Worker", "crop")
    assert (status["replicas"], status["inFlight"]) == (2, 2)
    assert status["builds"] == [{"build": build, "state": "Current", "replicas": 2, "inFlight": 2}]
    world.cluster.processes.clear()
    world.cluster.startable = False
    for pod in world.cluster.all("Pod"):
        world.cluster.remove("Pod", pod["metadata"]["name"])
    await world.rounds("Worker", "crop", 2)
    assert world.condition("Worker", "crop", "Available") == ("False", "NoPodAvailable")
    assert world.condition("Worker", "crop", "Accepted") == ("False", "InvalidSpec")
    assert await world.look("Worker", "crop") == RESYNC_S
    world.cluster.startable = True
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 30)
    assert world.replicas() == {build: 0}
    assert world.cluster.violations == []


async def test_without_the_token_nothing_can_be_freed_and_the_pods_are_told_all_the_same() -> None:
    world = World()
    build = await draining(world)
    spoil(world, "secret")
    world.restart()
    world.cluster.remove("Pod", world.cluster.all("Pod")[0]["metadata"]["name"])
    assert await world.look("Worker", "crop") == RESYNC_S
    assert world.status("Worker", "crop")["replicas"] == 2
    assert world.replicas() == {build: 3}
    assert world.condition("Worker", "crop", "Accepted") == ("False", "SecretNotFound")


@pytest.mark.parametrize(("kind", "name", "reason"), [
    ("Connection", "default", "ConnectionNotFound"), ("Secret", "api", "SecretNotFound"),
])  # fmt: skip
async def test_what_a_connection_lacks_is_told(kind: str, name: str, reason: str) -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    del world.cluster.objects[kind, name]  # type: ignore[arg-type]
    await world.rounds("Worker", "crop", 1)
    assert world.condition("Worker", "crop", "Accepted") == ("False", reason)


@pytest.mark.parametrize("token", [b"two\nlines", b"a\x00b", b"a\x7f"])
async def test_a_token_that_no_header_can_show_is_told(token: bytes) -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    world.cluster.objects["Secret", "api"]["data"]["token"] = base64.b64encode(token).decode()
    await world.rounds("Worker", "crop", 1)
    assert world.condition("Worker", "crop", "Accepted") == ("False", "ConnectionInvalid")
    (accepted,) = world.status("Worker", "crop")["conditions"]
    assert "Secret 'api' has more than a token under key 'token'" in accepted["message"]


async def test_a_secret_that_may_not_be_read_is_told_with_the_right_that_is_missing() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    world.cluster.forbidden.add("Secret")
    assert await world.look("Worker", "crop") == RESYNC_S
    assert world.condition("Worker", "crop", "Accepted") == ("False", "SecretForbidden")
    (accepted,) = world.status("Worker", "crop")["conditions"]
    assert "right to get Secret 'api' in namespace 'shop'" in accepted["message"]
    assert "operator.secretNames" in accepted["message"]
    world.cluster.forbidden.clear()
    await world.rounds("Worker", "crop", 1)
    assert world.condition("Worker", "crop", "Accepted") == ("True", "Accepted")


async def test_what_was_changed_by_others_is_put_right() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 2)
    (deployment,) = world.cluster.all("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "else:1"
    world.cluster.remove("PodDisruptionBudget", world.cluster.all("PodDisruptionBudget")[0]["metadata"]["name"])
    await world.rounds("Worker", "crop", 1)
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1"
    assert len(world.cluster.all("PodDisruptionBudget")) == 1


async def test_what_kubernetes_stores_in_other_words_is_applied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def reworded(item: Object) -> None:
        if item["kind"] == "Deployment":
            item["spec"]["revisionHistoryLimit"] = 7

    world = World()
    monkeypatch.setattr(world.cluster, "_defaulted", reworded)
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 5)
    assert sum(write.startswith("apply Deployment") for write in world.cluster.writes) == 1


async def test_a_resource_that_is_gone_is_forgotten() -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.rounds("Worker", "crop", 2)
    world.cluster.remove("Worker", "crop")
    assert await world.look("Worker", "crop") is None
    assert world.cluster.all("Deployment") == []
    assert not world.reconciler.pools


async def test_last_errors_are_told_and_read_once_while_their_number_is_the_same() -> None:
    world = World()
    world.cluster.declare("Workflow", "order", WORKFLOW)
    await world.rounds("Workflow", "order", 2)
    (build,) = world.replicas()
    world.perdure.open["order", build] = 1
    world.perdure.last = [Failed(workflow_id="o-1", status="failed", last_error="no stock", changed_at=0)]
    await world.rounds("Workflow", "order", 3)
    assert world.status("Workflow", "order")["runs"] == {"failed": 1, "running": 1}
    assert world.status("Workflow", "order")["lastErrors"] == [
        {"workflowId": "o-1", "status": "failed", "message": "no stock", "at": "1970-01-01T00:00:00Z"}
    ]
    assert world.perdure.asked_failed == 1


async def test_replicas_of_another_autoscaler_are_followed_by_the_same_steps() -> None:
    world = World()
    outside = {**WORKER, "scaling": {"provider": "none"}}
    world.cluster.declare("Worker", "crop", {**outside, "replicas": 3})
    await world.rounds("Worker", "crop", 3)
    world.perdure.send("task", "crop", 6)
    world.perdure.deliver()
    world.cluster.declare("Worker", "crop", {**outside, "replicas": 1})
    await world.rounds("Worker", "crop", 10)
    assert list(world.replicas().values()) == [3], "all are busy"
    for process in world.cluster.processes.values():
        process.in_flight.clear()
    await world.rounds("Worker", "crop", 10)
    assert list(world.replicas().values()) == [1]
    assert world.cluster.violations == []
