"""What /healthz has against a process: only what a restart would help."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Undeliverable
from perdure_runtime.service import metering
from perdure_runtime.service.metering import MeteredBroker, Progress
from perdure_runtime.service.probes import STALL_MAX_S, Health


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """A delivery has been open for too long, and none has ended."""
    now = 1_000.0
    monkeypatch.setattr(metering, "monotonic", lambda: now)
    progress = Progress()
    progress.opened([Undeliverable(topic="task-run.t", data=b"", error="", redeliveries=0, token=None)])
    now += STALL_MAX_S + 1
    return progress


def test_a_service_that_ends_no_delivery_is_of_no_use(stalled: Progress) -> None:
    (ailment,) = Health(stalled).ailments()
    assert "no delivery ended" in ailment


def test_a_worker_may_run_a_task_for_as_long_as_it_takes(stalled: Progress) -> None:
    assert Health(stalled, runs_user_code=True).ailments() == []


def test_a_service_whose_broker_is_away_needs_no_restart(stalled: Progress) -> None:
    class Away:
        def publisher(self) -> Any:
            return self

        async def publish(self, batch: object) -> None:
            raise StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        asyncio.run(MeteredBroker(cast(Any, Away()), stalled).publisher().publish([]))
    assert Health(stalled).ailments() == []
