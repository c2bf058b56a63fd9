"""What breaks, and who is told: processes that die, an operator that is away, resources that are wrong or go."""

from __future__ import annotations

import pytest

from perdure_operator.objects import DELETION_COST, LOWEST_COST
from tests.cluster.provision import Failed
from tests.e2e import pools
from tests.e2e.pools import Errands
from tests.e2e.release import LONG, NAME, Release, Steps, until

pytestmark = pytest.mark.timeout(1_800)

AWAY_S = 180.0 if LONG else 10.0
OWNED = "deployments,replicasets,pods,serviceaccounts,poddisruptionbudgets"
OPERATOR = f"deployment/{NAME}-operator"


def test_a_worker_that_is_killed_loses_no_task(serving: Errands, steps: Steps) -> None:
    with serving.release.client() as client:
        (pod,) = serving.await_pods("worker", "toil", 1)
        run = client.start("errand", "killed", 5.0)
        until("the task began", lambda: serving.told("began", ["killed"]))
        with steps.step("worker killed with a task in hand, and the task done by the next"):
            serving.release.kill(pod)
            assert run.result(timeout=120) == "killed"
    assert serving.told("began", ["killed"]) == {"killed": 2}
    assert serving.told("ended", ["killed"]) == {"killed": 1}


def test_a_worker_that_crashes_once_chosen_to_go_takes_no_work_until_it_is_told(serving: Errands, steps: Steps) -> None:
    (pod,) = serving.await_pods("worker", "toil", 1)
    name = pod["metadata"]["name"]
    with steps.step("worker killed after its pod was chosen to be deleted: it begins drained"):
        _scale_operator(serving.release, 0)  # it would spare the pod at once: nothing asks for fewer
        serving.release.kubectl("annotate", f"pod/{name}", f"{DELETION_COST}={LOWEST_COST}")
        serving.release.kill(pod)
        until("it began drained", lambda: '"begins_drained"' in serving.release.kubectl("logs", name))
    with (
        steps.step("operator back: the worker is spared, told to receive, and works"),
        serving.release.client() as client,
    ):
        _scale_operator(serving.release, 1)
        assert client.execute("errand", "spared", 0.0) == "spared"
        (same,) = serving.await_pods("worker", "toil", 1)
    assert same["metadata"]["name"] == name
    assert DELETION_COST not in (same["metadata"].get("annotations") or {})


def test_runs_go_on_while_the_operator_is_away(serving: Errands, steps: Steps) -> None:
    nap = pools.workflow("nap", **pools.of_code("errands"), scaling={"min": 0, "max": 1})
    with serving.declared(nap), serving.release.client() as client:
        serving.await_pods("worker", "toil", 1)
        (operator,) = serving.release.pods("app.kubernetes.io/component=operator")
        with steps.step(f"runs done while the operator is killed, and then away for {AWAY_S:.0f} s"):
            running = client.start("errand", "unattended", AWAY_S)
            serving.release.kill(operator)
            _scale_operator(serving.release, 0)
            asleep = client.start("nap", 0.0)
            assert client.execute("errand", "unattended too", 0.0) == "unattended too"
            assert running.result(timeout=AWAY_S + 60) == "unattended"
        with steps.step("operator back, and what waited for pods done"):
            _scale_operator(serving.release, 1)
            assert asleep.result(timeout=60) == "first"


def test_what_others_changed_is_put_right(serving: Errands, steps: Steps) -> None:
    (deployment,) = serving.release.find("deployments", "perdure.dev/worker=toil")
    name = deployment["metadata"]["name"]
    with steps.step("a Deployment that was edited is as declared again"):
        serving.release.kubectl("set", "env", f"deployment/{name}", "PERDURE_SLOTS=1")
        until("the Deployment is repaired", lambda: _env(serving.release.get("deployment", name)) == "100", 30)
    with steps.step("a Deployment that was deleted is there again"):
        serving.release.kubectl("delete", f"deployment/{name}")
        serving.await_pods("worker", "toil", 1)


def test_all_of_a_resource_goes_with_it(serving: Errands, steps: Steps) -> None:
    with serving.declared(pools.worker("brief", ["devour"], **pools.of_code("errands"))):
        assert serving.release.find(OWNED, "perdure.dev/worker=brief")
    with steps.step("nothing is left of a resource that was deleted"):
        until("all objects went", lambda: not serving.release.find(OWNED, "perdure.dev/worker=brief"))


def test_a_resource_that_cannot_be_followed_says_why(serving: Errands, steps: Steps) -> None:
    astray = pools.worker("toil", ["toil"], **pools.of_code("errands"), scaling=pools.ONE, connection="elsewhere")
    with steps.step("a connection that is not there is told, and what ran goes on"):
        serving.release.apply(astray)
        found = serving.await_condition("worker", "toil", "Accepted", reason="ConnectionNotFound")
        assert (found["status"], "'elsewhere'" in found["message"]) == ("False", True)
        serving.await_pods("worker", "toil", 1)
    with steps.step("and followed again once it is right"):
        serving.release.apply(pools.TOIL)
        serving.await_condition("worker", "toil", "Accepted", reason="Accepted")
    with pytest.raises(Failed, match="max must not be below min"):
        serving.release.apply(pools.worker("wrong", ["toil"], image="any", scaling={"min": 2, "max": 1}))


def test_an_image_that_cannot_be_pulled_is_told_and_the_old_build_serves(serving: Errands, steps: Steps) -> None:
    missing = pools.worker(
        "toil", ["toil"], image="localhost/missing:1", imagePullPolicy="Never", scaling=pools.ONE, app="app.py"
    )  # fmt: skip
    with steps.step("a build without an image is told"):
        serving.release.apply(missing)
        until("the condition names the image", lambda: "localhost/missing:1" in _progress(serving))
    with steps.step("and the build before it works"), serving.release.client() as client:
        assert client.execute("errand", "on the old build", 0.0) == "on the old build"
    with steps.step("taken back"):
        serving.release.apply(pools.TOIL)
        serving.await_condition("worker", "toil", "Progressing", reason="Complete")


def _progress(errands: Errands) -> str:
    found = errands.condition("worker", "toil", "Progressing")
    return f"{found['message']}" if found["reason"] == "NewBuildNotAvailable" else ""


def _env(deployment: pools.Object) -> str:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: str = next(each["value"] for each in container["env"] if each["name"] == "PERDURE_SLOTS")
    return found


def _scale_operator(release: Release, replicas: int) -> None:
    release.kubectl("scale", OPERATOR, f"--replicas={replicas}")
    if replicas:
        release.kubectl("rollout", "status", OPERATOR, "--timeout=120s")
    else:
        until("the operator is away", lambda: not release.find("pods", "app.kubernetes.io/component=operator"))
