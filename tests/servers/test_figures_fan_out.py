"""A fan-out from one turn, on services that are processes: all of it is done, recorded once, and in bounded time."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from perdure_schemas.events import CommandSettled, TurnCommitted
from tests.servers import fan_out_app
from tests.servers.deployment import deployed, worker
from tests.servers.replicas import LONG

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(1_800), pytest.mark.usefixtures("alone")]

WIDTH = 10_000 if LONG else 1_000
_SERVICES = ("workflow_engine", "workflow_engine", "task_engine", "task_engine", "timer", "projector", "api")
_PORTION_MIN = 1_000
"""Commands of a turn in one message: far fewer would be turns that waited for tasks."""
_PATIENCE_S = 1_500 if LONG else 300
"""No figure: others may load this machine."""


async def test_every_task_of_one_turn_is_done_and_recorded_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = tmp_path / "executed"
    given = {fan_out_app.EXECUTED: str(marks)}
    async with asyncio.timeout(_PATIENCE_S), deployed(tmp_path, _SERVICES) as (client, _, settings):
        with worker(Path(fan_out_app.__file__), settings, tmp_path / "worker.log", given=given):
            assert await client.execute("fan", 1) == 1, "all are up"
            marks.unlink()
            run = await client.start("fan", WIDTH)
            began = time.monotonic()
            assert await run.result() == WIDTH * (WIDTH + 1) // 2
            seconds = time.monotonic() - began
        history = await run.history()
    turns = [record.event for record in history if isinstance(record.event, TurnCommitted)]
    issued = [command.id for turn in turns for command in turn.commands if command.kind == "task"]
    settled = [record.event.command_id for record in history if isinstance(record.event, CommandSettled)]
    executed = Counter(marks.read_text().split())
    with capsys.disabled():
        print(f"\n{WIDTH} tasks of one turn: {seconds:.1f} s, {WIDTH / seconds:.0f} a second, {len(turns)} turns, "
              f"{executed.total() - WIDTH} executions again; load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    assert len(issued) == WIDTH
    assert [bool(turn.commands) for turn in turns] == [*[True] * (len(turns) - 1), False]
    assert len(turns) - 1 <= -(-WIDTH // _PORTION_MIN), "one turn, told in as few messages as bear it"
    assert sorted(settled) == sorted(issued), "each outcome is recorded once"
    assert executed.keys() == {str(number) for number in range(WIDTH)}
