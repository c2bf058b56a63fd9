"""A history made under another hash seed is named as such where it does not replay."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.parametrize(
    ("made_by", "named"),
    [("3.11.7 hash 00000000", True), (seeds.PYTHON, False), ("3.11.7", False)],
    ids=["another", "the same", "none recorded"],  # not the seed: each process of a test run has one of its own
)
async def test_another_seed_is_named(monkeypatch: pytest.MonkeyPatch, made_by: str, named: bool) -> None:
    gate = GATES["all"] = Gate()
    monkeypatch.setattr("perdure._replay.guard.seeds.PYTHON", made_by)
    async with World(step, as_ordered) as world:
        run = await world.client.start(as_ordered)
        await gate.reached()
        await world.kill_worker()
        monkeypatch.undo()
        monkeypatch.setattr(f"{__name__}.ORDER", ["b", "a"])
        await world.start_worker()
        gate.open()
        found = await described(run, "stuck")
        assert found.last_error.startswith("WorkflowChangedError")
        assert ("PYTHONHASHSEED" in found.last_error) is named
        await run.terminate()


async def test_the_seed_shows_in_what_turns_record() -> None:
    program = "from perdure._replay.guard import seeds; print(seeds.PYTHON)"

    def told(seed: str) -> str:
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert told("0") == told("0") != told("1")
