"""A history made under another hash seed is refused, unless the guard is lenient."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import task, workflow
from perdure._replay.guard import seeds
from tests.sdk.semantics.world import Gate, World, described

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
ORDER = ["a", "b"]


@task
async def step(name: str) -> str:
    await GATES["all"].passed()
    return name


@workflow
async def as_ordered() -> list[str]:
    """In the order of a set, as far as the recorded history can tell."""
    return [await step(name) for name in ORDER]


ANOTHER = "3.11.7 hash 00000000"


@pytest.mark.parametrize(
    ("made_by", "refused"),
    [(ANOTHER, True), (seeds.PYTHON, False), ("3.11.7", False)],
    ids=["another", "the same", "none recorded"],  # not the seed: each process of a test run has one of its own
)
async def test_a_history_of_another_seed_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, made_by: str, refused: bool
) -> None:
    """Though the code would replay it. Who waits for it is told what to do, which is not to mend its code."""
    gate = GATES["all"] = Gate()
    monkeypatch.setattr("perdure._replay.guard.seeds.PYTHON", made_by)
    async with World(step, as_ordered) as world:
        run = await world.client.start(as_ordered)
        await gate.reached()
        await world.kill_worker()
        monkeypatch.undo()
        await world.start_worker()
        gate.open()
        if not refused:
            assert await run.result() == ORDER
            return
        found = await described(run, "stuck")
        assert found.last_error.startswith("WorkflowChangedError: this history was made under another PYTHONHASHSEED")
        assert "PYTHONHASHSEED=0 in its environment" in found.last_error
        monkeypatch.setattr("perdure._client.stuck.LOOK_SECONDS", 0.02)
        waiting = asyncio.create_task(run.result())
        told = "replays the history all the same. It and who waits for it go on once that is done"
        while told not in caplog.text:  # noqa: ASYNC110 - logging wakes nobody
            await asyncio.sleep(0.01)
        waiting.cancel()
        monkeypatch.setattr("perdure._replay.guard.seeds.PYTHON", made_by)
        await world.kill_worker()
        await world.start_worker()
        assert await run.result() == ORDER, "a worker of that seed goes on with it"


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
async def test_a_lenient_guard_tries_it_and_names_the_seed_where_it_fails(
    monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    gate = GATES["all"] = Gate()
    monkeypatch.setenv("PERDURE_GUARD", "warn")
    with monkeypatch.context() as patch:
        patch.setattr("perdure._replay.guard.seeds.PYTHON", ANOTHER)
        async with World(step, as_ordered) as world:
            run = await world.client.start(as_ordered)
            await gate.reached()
            await world.kill_worker()
            patch.undo()
            patch.setattr(f"{__name__}.ORDER", order)
            await world.start_worker()
            gate.open()
            if order == ["a", "b"]:
                assert await run.result() == order
                return
            found = await described(run, "stuck")
            assert "position" in found.last_error
            assert "this history was made under another PYTHONHASHSEED" in found.last_error
            await run.terminate()


async def test_the_seed_shows_in_what_turns_record() -> None:
    program = "from perdure._replay.guard import seeds; print(seeds.PYTHON)"
    told = [run(program, PYTHONHASHSEED=seed).stdout for seed in "001"]
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize(
    ("environment", "refused", "warned"),
    [
        ({}, True, False),
        ({"PYTHONHASHSEED": "random"}, True, False),
        ({"PERDURE_GUARD": "warn"}, False, True),
        ({"PERDURE_GUARD": "off"}, False, True),
        ({"PYTHONHASHSEED": "0"}, False, False),
        ({"PYTHONHASHSEED": "42"}, False, False),
    ],
)
async def test_runs_on_a_file_want_a_seed_that_the_next_process_has_too(
    tmp_path: Path, environment: dict[str, str], refused: bool, warned: bool
) -> None:
    program = """
import asyncio, sys
from perdure import Client, PerdureError, task, workflow

@workflow
async def nothing() -> None: ...

@task
async def alone() -> None: ...

async def main(*objects, **options):
    async with Client.embedded(*objects, **options): ...

asyncio.run(main(nothing))
asyncio.run(main(alone, db="tasks.sqlite"))
asyncio.run(main(nothing, db="looked.sqlite", worker=False))
print("---", flush=True, file=sys.stderr)
try:
    asyncio.run(main(nothing, db="runs.sqlite"))
except PerdureError as error:
    print("refused:", error, file=sys.stderr)
"""
    safe, on_a_file = run(program, tmp_path, **environment).stderr.split("---")
    assert "PYTHONHASHSEED" not in safe
    assert (
        "refused: this process has a random PYTHONHASHSEED, and no other process can go on with" in on_a_file
    ) is refused
    assert ("Start it with PYTHONHASHSEED=0 in its environment; where no run has to go on" in on_a_file) is refused
    assert ("Start every worker with PYTHONHASHSEED=0 in its environment" in on_a_file) is warned
    assert (tmp_path / "runs.sqlite").exists() is not refused


def run(program: str, folder: Path = Path(), **environment: str) -> subprocess.CompletedProcess[str]:
    paths = ":".join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": paths, **environment}, cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
