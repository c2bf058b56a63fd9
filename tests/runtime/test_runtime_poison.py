"""What goes on for ever goes on whatever a step raises, and tells which of it nobody has foreseen."""

from __future__ import annotations

import asyncio

import pytest

from perdure_runtime import poison
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StorageUnavailable("the node is away"), ("WARNING", "step_delayed")),
        (UnknownOutcome("the connection was closed"), ("WARNING", "step_delayed")),
        (ValueError("of ours"), ("ERROR", "step_failed")),
    ],
)
@pytest.mark.asyncio
async def test_a_step_that_fails_is_told_and_taken_again(
    error: Exception, told: tuple[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(poison, "OUTAGE_DELAY_MS", 1)
    again = asyncio.Event()
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            raise error
        again.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(poison.for_ever(step))
    await asyncio.wait_for(again.wait(), 30)
    running.cancel()
    await asyncio.wait([running])
    assert [(record.levelname, vars(record)["action"]) for record in caplog.records] == [told]
