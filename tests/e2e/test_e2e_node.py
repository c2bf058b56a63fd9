"""The node's own parts die, and pods have to leave it: work goes on."""

from __future__ import annotations

import pytest

from tests.e2e.pools import Errands
from tests.e2e.release import Steps, until

pytestmark = pytest.mark.timeout(1_800)

TASK_S = 8.0
"""Less than the 30 s that a pod has to end what it has, and more than a drain takes without waiting for it."""


def test_work_goes_on_when_parts_of_kubernetes_are_killed(serving: Errands, steps: Steps) -> None:
    (pod,) = serving.await_pods("worker", "toil", 1)
    with serving.release.client() as client:
        client.start("errand", "ungoverned", TASK_S, id="ungoverned")
        until("the task began", lambda: serving.told("began", ["ungoverned"]))
    for component in ("kubelet", "kube-apiserver"):
        with steps.step(f"{component} killed and back"):
            serving.release.cluster.kill_component(component, node=pod["spec"]["nodeName"])
            until("the API server answers", serving.release.answers)
    with steps.step("the run that went on meanwhile ended"), serving.release.client() as client:
        assert client.handle("ungoverned").result(timeout=60) == "ungoverned"
    assert serving.told("began", ["ungoverned"]) == {"ungoverned": 1}
    assert serving.release.pods("perdure.dev/worker=toil")[0]["metadata"]["uid"] == pod["metadata"]["uid"]


def test_a_pod_that_is_evicted_finishes_what_it_has(serving: Errands, steps: Steps) -> None:
    with serving.release.client() as client:
        (pod,) = serving.await_pods("worker", "toil", 1)
        node = pod["spec"]["nodeName"]
        run = client.start("errand", "evicted", TASK_S)
        until("the task began", lambda: serving.told("began", ["evicted"]))
        try:
            with steps.step("node drained of the worker, whose task ended first"):
                serving.release.cluster.kubectl(
                    "drain", node, "--pod-selector=perdure.dev/worker=toil", "--delete-emptydir-data", "--timeout=90s"
                )
            assert run.result(timeout=10) == "evicted"
        finally:
            serving.release.cluster.kubectl("uncordon", node)
        with steps.step("node open again, and another pod ready"):
            (other,) = serving.await_pods("worker", "toil", 1)
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]
    assert serving.told("began", ["evicted"]) == {"evicted": 1}
