"""The release goes: no object is stuck, and what users declared stays."""

from __future__ import annotations

import pytest

from tests.e2e import pools
from tests.e2e.pools import Errands
from tests.e2e.release import DEFINITIONS, NAME, NAMESPACE, Steps, until

pytestmark = pytest.mark.timeout(1_800)


def test_what_is_declared_outlives_the_release(errands: Errands, steps: Steps) -> None:
    release = errands.release
    with errands.declared(pools.TOIL):
        (pod,) = errands.await_pods("worker", "toil", 1)
        with steps.step("helm uninstall"):
            release.cluster.helm("uninstall", NAME, "--namespace", NAMESPACE, "--wait", "--timeout", "2m")
        assert {each["metadata"]["name"] for each in release.find("customresourcedefinitions")} >= set(DEFINITIONS)
        assert [each["metadata"]["name"] for each in release.find("workers")] == ["toil"]
        assert release.get("pod", pod["metadata"]["name"])["metadata"]["uid"] == pod["metadata"]["uid"]
        until("all pods of the release went", lambda: not release.find("pods", f"app.kubernetes.io/instance={NAME}"))
    with steps.step("what was declared goes without an operator"):
        until("all objects went", lambda: not release.find("all,serviceaccounts,pdb", "perdure.dev/worker=toil"))
    with steps.step("the namespace goes"):
        release.cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
