"""The sweep finds the runs that nobody works on any more, and only they are what it is for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from perdure_schemas.messages import RunWorkflowTask
from tests.simulation.faults import EVERYTHING, NO_FAULTS
from tests.simulation.faulty_broker import FaultyPublisher
from tests.simulation.schedule import BACKSTOP, simulate

LOST_SECONDS = 30.0
"""Longer than any message is held, and re-asked for by those who hold it."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong here is meant to."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_a_run_whose_turns_are_lost_without_trace_is_found() -> None:
    with _turns_lost():
        left_alone = simulate(1, NO_FAULTS, "sequence", backstop=False)
    assert any(violation.startswith("unfinished") for violation in left_alone.violations), "or there is nothing to heal"
    with _turns_lost():
        swept = simulate(1, NO_FAULTS, "sequence")
    assert swept.stats[BACKSTOP] == 1
    assert not swept.violations, swept.violations


def test_a_sweep_that_looks_at_nothing_heals_nothing() -> None:
    with _turns_lost(), patch("perdure_runtime.sweep._is_overdue", lambda age_ms, interval_ms: False):
        report = simulate(1, NO_FAULTS, "sequence")
    assert any(violation.startswith("unfinished") for violation in report.violations)


def test_what_a_zombie_records_of_a_refused_start_is_published_though_the_broker_falters() -> None:
    """The start was acknowledged by the replica that refused it: the zombie alone knows what there is to publish."""
    reports = [simulate(seed, EVERYTHING, "rivals") for seed in range(131_490, 131_520)]
    assert sum(report.stats["zombie"] for report in reports) > 0
    assert sum(report.stats["publish_error"] for report in reports) > 0
    assert not [violation for report in reports for violation in report.violations]


def _turns_lost() -> Any:
    """For a while no turn that is asked for reaches the broker, who confirms it all the same."""
    store = FaultyPublisher._store

    def losing(self: FaultyPublisher, topic: str, message: Any) -> None:
        lost = isinstance(message.body, RunWorkflowTask) and self._world.loop.time() < LOST_SECONDS
        if not lost:
            store(self, topic, message)

    return patch.object(FaultyPublisher, "_store", losing)
