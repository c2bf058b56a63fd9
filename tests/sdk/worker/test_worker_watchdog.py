"""Who is blamed for a loop that gives nobody a turn."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from perdure._worker import user_loop
from tests.sdk.worker.engine import PATIENCE_S

ASKED, LOOKS = 3, 20
"""Looks after which the watchdog has asked a loop that does not answer; and some more."""


def test_a_process_that_was_stopped_blames_no_task_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(user_loop, "PROBE_SECONDS", 0.05)
    busy, stopped, looked = threading.Event(), threading.Event(), threading.Semaphore(0)

    def monotonic() -> float:
        if busy.is_set():
            looked.release()
        return time.monotonic() + (3_600 if stopped.is_set() else 0)

    monkeypatch.setattr(user_loop, "time", SimpleNamespace(monotonic=monotonic))

    async def computes() -> None:
        busy.set()
        for looks in (ASKED, LOOKS):
            for _ in range(looks):
                assert looked.acquire(timeout=PATIENCE_S)
            stopped.set()

    loop = user_loop.UserLoop()
    try:
        asyncio.run_coroutine_threadsafe(computes(), loop.loop).result(PATIENCE_S)
    finally:
        loop.stop()
    assert "task_blocks_loop" not in caplog.text
