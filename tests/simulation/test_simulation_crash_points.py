"""Runs of at most four commands, with a crash at every step that there is, and with a zombie at every step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.simulation.faults import NO_FAULTS, Faults
from tests.simulation.schedule import simulate

SEED = 1
CRASHES = (
    *("hello", "fan-out", "by-chance", "cancel", "signals", "delegation", "tasks", "relay"),
    *("resume", "resume-child", "skip"),
)
ZOMBIES = ("hello", "fan-out", "signals", "resume")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong here is meant to."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("workload", CRASHES)
def test_a_crash_at_any_step_breaks_nothing(workload: str) -> None:
    _at_every_step(workload, [replace(NO_FAULTS, crash_at=step) for step in _steps(workload)])


@pytest.mark.parametrize("workload", ZOMBIES)
def test_a_zombie_at_any_step_breaks_nothing(workload: str) -> None:
    _at_every_step(workload, [replace(NO_FAULTS, sleep_at=step) for step in _steps(workload)])


def _steps(workload: str) -> range:
    undisturbed = simulate(SEED, NO_FAULTS, workload)
    assert not undisturbed.violations
    assert undisturbed.steps > 100
    return range(1, undisturbed.steps + 1)


def _at_every_step(workload: str, plans: list[Faults]) -> None:
    broken, struck = [], 0
    for plan in plans:
        report = simulate(SEED, plan, workload)
        struck += report.stats["crash"] + report.stats["zombie"] > 0
        if report.violations:
            broken.append(f"{plan.crash_at or plan.sleep_at}: {'; '.join(report.violations)}")
    assert not broken, "\n".join(broken)
    assert struck == len(plans), "every step was reached"
