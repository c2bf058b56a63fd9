"""Hundreds of resources at rest: they are there soon, and then nothing is written."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import pools
from tests.e2e.pools import Errands
from tests.e2e.release import LONG, NAMESPACE, Steps, until

pytestmark = pytest.mark.timeout(1_800)

WORKERS = 300 if LONG else 60
PORTION = 10
"""kubectl sends so many at once, and then five per second."""
RECONCILED_MAX_S = 60
"""As promised for 300, on a quiet machine."""
REST_S = 30 if LONG else 15
OURS = "workers,workflows,deployments,serviceaccounts,poddisruptionbudgets"


def test_hundreds_of_workers_at_rest_cost_nothing(errands: Errands, steps: Steps) -> None:
    names = [f"many-{number}" for number in range(WORKERS)]
    crowd = [pools.worker(name, [name], **pools.of_code("errands")) for name in names]
    try:
        began = time.monotonic()
        with steps.step(f"{WORKERS} resources declared"):
            portions = [crowd[at : at + PORTION] for at in range(0, WORKERS, PORTION)]
            with ThreadPoolExecutor(4) as executor:
                list(executor.map(lambda portion: errands.release.apply(*portion, verb="create"), portions))
        with steps.step(f"{WORKERS} resources reconciled"):
            until("all are accepted", lambda: _accepted(errands) >= set(names), 300)
        took = time.monotonic() - began
        assert took <= RECONCILED_MAX_S, f"{WORKERS} Worker resources took {took:.0f} s"
        with steps.step(f"nothing written for {REST_S} s"):
            _await_rest(errands)
    finally:
        with steps.step("all gone"):
            errands.release.kubectl("delete", "--raw", f"/apis/perdure.dev/v1alpha1/namespaces/{NAMESPACE}/workers")
            until("all Deployments went", lambda: not errands.release.find("deployments", "perdure.dev/worker"), 180)


def _accepted(errands: Errands) -> set[str]:
    return {
        each["metadata"]["name"]
        for each in errands.release.find("workers")
        if any(
            c["type"] == "Accepted" and c["status"] == "True" for c in (each.get("status") or {}).get("conditions", ())
        )
    }


def _await_rest(errands: Errands) -> None:
    """Once the last step is told, every object stays as it is."""
    before = until("two looks are alike", lambda: _quiet(errands, 3))
    time.sleep(REST_S)
    assert _versions(errands) == before


def _quiet(errands: Errands, seconds: float) -> dict[str, str] | None:
    before = _versions(errands)
    time.sleep(seconds)
    return before if _versions(errands) == before else None


def _versions(errands: Errands) -> dict[str, str]:
    found = errands.release.find(OURS)
    return {f"{each['kind']} {each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in found}
