"""What holds for every test of the replay loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.replay.live import live_runs


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    """Left open, a run's frames would be closed by the garbage collector, amid another test."""
    yield
    while live_runs:
        live_runs.pop().evict()
