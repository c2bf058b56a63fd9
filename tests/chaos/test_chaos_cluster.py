"""A cluster of real processes on servers of its own: nothing is lost whatever is killed, and a defect is seen.

These tests take minutes, and one file is one process's: `make test` begins with them (tests/conftest.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.audit import Report
from tests.chaos.course import (
    SHORT_PATIENCE_S,
    USERS,
    audit_what_ran,
    chaos,
    deployed,
    load_and_disturb,
)
from tests.chaos.leftovers import audit_read_model
from tests.chaos.load import Load
from tests.chaos.nemesis import Nemesis
from tests.chaos.recovery import measure_recovery
from tests.chaos.stack import Stack, servers_of_its_own
from tests.servers import provision
from tests.servers.clean import need_tools

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1_500)]

SECONDS = 60
SEED = 1
WORKER_S = 5
ENGINE_S = 10
_SHORT_S = 8


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    need_tools()
    with provision.alone():
        async with servers_of_its_own(tmp_path_factory.mktemp("chaos"), print) as stack:
            yield stack


async def test_nothing_is_lost_whatever_is_killed(stack: Stack) -> None:
    nemesis = Nemesis(stack, SEED, print)
    async with deployed(stack, "whole") as client:
        recovery = await measure_recovery(client, stack, print)
        report = await chaos(client, stack, nemesis, seconds=SECONDS, users=USERS, tell=print)
    assert not report.violations
    assert report.runs > USERS
    assert report.listed > 0
    assert nemesis.faults.total() >= SECONDS / 10
    measured = f"{recovery}, load average {os.getloadavg()[0]:.1f}"
    assert recovery["worker"] <= WORKER_S, measured
    assert max(recovery["workflow_engine"], recovery["task_engine"]) <= ENGINE_S, measured


async def test_a_timer_that_is_early_a_signal_that_comes_twice_and_a_run_that_is_not_listed_or_counted_are_seen(
    stack: Stack,
) -> None:
    async with deployed(stack, "wrong", ["fire-early", "record-signals-twice", "skip-changes", "miscount"]) as client:
        load = Load(client, SEED, USERS)
        promises = await load_and_disturb(stack, load, lambda: asyncio.sleep(_SHORT_S), SHORT_PATIENCE_S)
        report = Report()
        audit_what_ran(report, stack, promises)
        await audit_read_model(report, client, stack, promises)
    seen = "\n".join(report.violations)
    for violation in (
        "its timer fired", "signals came as [0, 0, 1, 1", "has completed, and is running", "runs counted, ",
    ):  # fmt: skip
        assert violation in seen, seen
