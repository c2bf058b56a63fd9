"""Code is changed while runs sleep: each run stays on the build that it began on."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from perdure.sync import SyncClient
from tests.e2e import pools
from tests.e2e.pools import Errands
from tests.e2e.release import LONG, Steps, until

pytestmark = pytest.mark.timeout(1_800)

RUNS, NAP_S = (50, 120) if LONG else (5, 30)
GONE_MAX_S = 120
"""A build goes 40 s after its last run: the routing record has settled by then, and what turns up late wakes it."""
NAPPING = {"scaling": {"min": 0, "max": 2, "cooldownSeconds": 3}}


def napping(code: str) -> pools.Object:
    return pools.workflow("nap", **pools.of_code(code), **NAPPING)


def test_runs_stay_on_their_build_and_an_old_build_goes_by_itself(errands: Errands, steps: Steps) -> None:
    errands.release.apply(pools.code("errands-second", "second"))
    with errands.declared(napping("errands")), errands.release.client() as client:
        first = errands.status("workflow", "nap")["currentBuild"]
        with steps.step(f"{RUNS} runs sleep on the first build, whose pods went"):
            sleeping = [client.start("nap", float(NAP_S)) for _ in range(RUNS)]
            until("all pods went while runs sleep", lambda: not errands.release.pods("perdure.dev/workflow=nap"))
        with steps.step("the second build is current"):
            errands.release.apply(napping("errands-second"))
            second = until("another build is current", lambda: _other(errands, first), 60)
        with steps.step("a new run on the second build"):
            _await_new_runs(client, "second")
        with steps.step("rolled back, and a new run on the first build"):
            errands.release.apply(napping("errands"))
            until("the first build is current", lambda: _current(errands) == first, 30)
            _await_new_runs(client, "first")
        with steps.step("forward again, and a new run on the second build"):
            errands.release.apply(napping("errands-second"))
            until("the second build is current", lambda: _current(errands) == second, 30)
            _await_new_runs(client, "second")
        with steps.step("those that slept end on the first build"):
            assert {run.result(timeout=NAP_S + 120.0) for run in sleeping} == {"first"}
        with steps.step("the first build's Deployment went by itself"):
            until("one build is left", lambda: _builds(errands) == {second}, GONE_MAX_S)


def _await_new_runs(client: SyncClient, code: str) -> None:
    """Engines keep a routing record for a second; from then on every new run is of this code."""
    until(f"a new run is of the code {code}", lambda: client.execute("nap", 0.0) == code, 10)
    assert [client.execute("nap", 0.0) for _ in range(3)] == [code] * 3


def _current(errands: Errands) -> str:
    found: str = errands.status("workflow", "nap").get("currentBuild", "")
    return found


def _other(errands: Errands, build: str) -> str | None:
    current = _current(errands)
    return current if current and current != build else None


def _builds(errands: Errands) -> set[str]:
    found: Iterable[pools.Object] = errands.release.find("deployments", "perdure.dev/workflow=nap")
    return {each["metadata"]["labels"]["perdure.dev/build"] for each in found}
