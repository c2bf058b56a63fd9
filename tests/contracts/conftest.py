"""What the contract suites of stores have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contracts.worlds import PATIENCE_S, STORES, Scenario, SteppedClock, open_ports


@pytest.fixture(params=STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on the ports of each kind, with a clock that it moves."""

    async def world(scenario: Scenario) -> None:
        clock = SteppedClock()
        async with open_ports(request.param, tmp_path, clock) as ports:
            await asyncio.wait_for(scenario(ports, clock), PATIENCE_S)

    return lambda scenario: asyncio.run(world(scenario))
