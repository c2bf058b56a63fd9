"""2,000 schedules in which everything goes wrong that may; `make simulate` runs more.

None of them needs the backstop: it is for what chance brings once in 100,000 schedules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.catalog import WORKLOADS
from tests.simulation.faults import EVERYTHING, NO_FAULTS
from tests.simulation.offloaded import EVERYTHING_ABOVE
from tests.simulation.schedule import simulate

SEEDS = 2_000
SHARDS = 20
OFFLOADED_SEEDS = 400
"""Of schedules whose every value is stored beside the messages."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong here is meant to."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_schedules_keep_every_promise(shard: int) -> None:
    broken = []
    for seed in range(shard, SEEDS, SHARDS):
        report = simulate(seed, backstop=False)
        if report.violations:
            broken.append(f"seed {seed} {report.workload}: {'; '.join(report.violations)}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_schedules_keep_every_promise_about_values_beside_their_messages(shard: int) -> None:
    broken = []
    for seed in range(shard, OFFLOADED_SEEDS, SHARDS):
        report = simulate(seed, backstop=False, above=EVERYTHING_ABOVE)
        if report.violations:
            broken.append(f"seed {seed} {report.workload}: {'; '.join(report.violations)}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("above", [None, EVERYTHING_ABOVE])
@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_without_faults_nothing_is_done_twice(workload: str, above: int | None) -> None:
    report = simulate(1, NO_FAULTS, workload, above=above)
    assert not report.violations, report.violations
    assert not report.doubled or report.stats["crash"], report.doubled  # a script may restart workers with new code


@pytest.mark.parametrize("above", [None, EVERYTHING_ABOVE])
@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_a_schedule_repeats_exactly(workload: str, above: int | None) -> None:
    first, second = (simulate(7, EVERYTHING, workload, above=above) for _ in range(2))
    assert first.log
    assert (first.log, first.steps, first.stats) == (second.log, second.steps, second.stats)
