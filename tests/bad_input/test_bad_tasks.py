"""Tasks that misbehave: the attempt fails or times out, the worker and a neighbour go on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from perdure import Client
from tests.bad_input import hostile_app as app


@pytest.mark.parametrize("by_thread", [False, True])
def test_a_base_exception_fails_the_attempt_only(by_thread: bool) -> None:
    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(app) as client:
            told = await client.execute(app.escaped, by_thread)
            assert ("SystemExit" if by_thread else "Escape: over the wall") in told
            assert await client.execute(app.neighbour, 1) == 8

    asyncio.run(work())


@pytest.mark.parametrize("by_thread", [False, True])
def test_a_task_that_never_returns_times_out_and_others_go_on_meanwhile(by_thread: bool) -> None:
    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(app) as client:
            run = await client.start(app.timed_out, by_thread)
            assert await client.execute(app.neighbour, 1) == 8
            assert (await run.result()).startswith("timed out")
            assert await client.execute(app.neighbour, 2) == 16

    asyncio.run(work())


def test_a_task_that_blocks_the_loop_is_named_with_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other async tasks wait meanwhile, as they must; the engine, the turns and the watchdog do not."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def work() -> None:
        async with asyncio.timeout(60), Client.embedded(app) as client:
            blocked = await client.start(app.blocked, str(pipe))
            told = await client.execute(app.unserialisable_argument)  # a turn, while the loop is blocked
            assert told.startswith("SerializationError")
            while "task_blocks_loop" not in caplog.text:  # noqa: ASYNC110 - logging wakes nobody
                await asyncio.sleep(0.01)
            pipe.write_text("")
            assert await blocked.result() == "done"
            assert await client.execute(app.neighbour, 1) == 8

    asyncio.run(work())
    (told,) = [record.getMessage() for record in caplog.records if "task_blocks_loop" in record.getMessage()]
    assert "hostile_app.py" in told
    assert "in block: Path(pipe).read_text()" in told
