"""A task that eats all of its pod's memory: it fails as what it is, and those beside it finish."""

from __future__ import annotations

import pytest

from perdure import RunFailed
from tests.e2e import pools
from tests.e2e.pools import Errands
from tests.e2e.release import Steps

pytestmark = pytest.mark.timeout(1_800)

DEATHS_MAX = 3
NEIGHBOURS, BESIDE_S = 3, 2.0
LIMIT = "256Mi"
EATEN_MB = 1_000


def test_a_task_that_eats_all_memory_fails_and_its_neighbours_finish(errands: Errands, steps: Steps) -> None:
    pool = pools.worker(
        "feast", ["devour", "toil"], **pools.of_code("errands", resources={"limits": {"memory": LIMIT}}),
        scaling={"min": 1, "max": 1},
    )  # fmt: skip
    flows = [
        pools.workflow(name, **pools.of_code("errands"), scaling={"min": 1, "max": 1}) for name in ("feast", "errand")
    ]
    with errands.declared(pool, *flows), errands.release.client() as client:
        (pod,) = errands.await_pods("worker", "feast", 1)
        with steps.step(f"a task died {DEATHS_MAX} times and failed as WorkerDied"):
            beside = [client.start("errand", f"beside-{number}", BESIDE_S) for number in range(NEIGHBOURS)]
            eating = client.start("feast", "glutton", EATEN_MB)
            with pytest.raises(RunFailed, match="WorkerDied"):
                eating.result(timeout=300)
        with steps.step(f"{NEIGHBOURS} tasks beside it ended"):
            assert [run.result(timeout=120) for run in beside] == [f"beside-{number}" for number in range(NEIGHBOURS)]
        assert errands.told("began", ["glutton"]) == {"glutton": DEATHS_MAX}
        (container,) = errands.release.get("pod", pod["metadata"]["name"])["status"]["containerStatuses"]
        assert container["restartCount"] == DEATHS_MAX
        assert container["lastState"]["terminated"]["reason"] == "OOMKilled"
