"""From zero and back, with tasks that take longer than a pod that is ended would get: none is killed."""

from __future__ import annotations

import pytest

from tests.e2e import pools
from tests.e2e.pools import Errands
from tests.e2e.release import LONG, Steps, until

pytestmark = pytest.mark.timeout(7_200 if LONG else 1_800)

CYCLES, TASK_S, DRAIN_S = (10, 180.0, 20) if LONG else (2, 12.0, 3)
PODS, SLOTS = 3, 2
STARTS = 500 if LONG else 50
AT_ZERO = {"min": 0, "max": PODS, "cooldownSeconds": 2, "targetUtilization": 100}


def test_no_busy_pod_goes(errands: Errands, steps: Steps) -> None:
    pool = pools.worker(
        "toil", ["toil"], **pools.of_code("errands"), slots=SLOTS, drainTimeoutSeconds=DRAIN_S, scaling=AT_ZERO
    )
    with errands.declared(pools.ERRAND, pool), errands.release.client() as client:
        for cycle in range(CYCLES):
            names = [f"toil-{cycle}-{number}" for number in range(PODS * SLOTS)]
            with steps.step(f"cycle {cycle + 1}: 0 to {PODS} pods"):
                # Every second one is short: its pod has less to do than others, when the first pods are to go.
                runs = [
                    client.start("errand", name, TASK_S / 3 if number % 2 else TASK_S)
                    for number, name in enumerate(names)
                ]
                errands.await_pods("worker", "toil", PODS)
            with steps.step(f"cycle {cycle + 1}: tasks of {TASK_S / 3:.0f} and {TASK_S:.0f} s done"):
                assert [run.result(timeout=3 * TASK_S + 60) for run in runs] == names
            with steps.step(f"cycle {cycle + 1}: {PODS} to 0 pods"):
                until("all pods went", lambda: not errands.release.pods("perdure.dev/worker=toil"))
            assert errands.told("began", names) == dict.fromkeys(names, 1)
            assert errands.told("ended", names) == dict.fromkeys(names, 1)


def test_what_is_started_on_a_pool_at_zero_is_done(errands: Errands, steps: Steps) -> None:
    pool = pools.workflow("nap", **pools.of_code("errands"), scaling=AT_ZERO)
    with errands.declared(pool), errands.release.client() as client:
        assert errands.release.pods("perdure.dev/workflow=nap") == []
        with steps.step(f"{STARTS} runs started on a pool at zero, and done"):
            runs = [client.start("nap", 0.0) for _ in range(STARTS)]
            assert {run.result(timeout=120) for run in runs} == {"first"}
