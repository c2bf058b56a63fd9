"""What kills a worker, or wants a worker that does not exist: with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.dev_process import Dev, running_dev

APP = Path(__file__).with_name("hostile_app.py")


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    with running_dev(APP, tmp_path / "dev.sqlite") as running:
        yield running


def test_a_task_that_kills_its_worker_three_times_fails_as_worker_died(dev: Dev, tmp_path: Path) -> None:
    log = tmp_path / "deaths"
    dev.perdure("start", "deadly", f'"{log}"', "--id", "deadly")
    dev.perdure("start", "neighbour", "1", "--id", "neighbour")
    told = dev.perdure("result", "deadly", "--timeout", "60", code=1)
    assert "WorkerDied" in told
    assert len(set(log.read_text().split())) == 3
    assert dev.perdure("result", "neighbour", "--wait") == 8
    assert dev.perdure("start", "neighbour", "2", "--wait") == 16


def test_a_workflow_that_no_worker_knows_waits_and_says_for_what(dev: Dev) -> None:
    """A worker that knows it may come later (a deployment under way), so this is no error; but it is visible."""
    dev.perdure("start", "nobody_has_this", "1", "--id", "lonely")
    told = dev.perdure("result", "lonely", code=1)
    assert "still open" in told
    assert dev.perdure("show", "lonely")["status"] == "running"
    assert dev.perdure("start", "neighbour", "1", "--wait") == 8


def test_a_task_that_no_worker_knows_waits_and_says_for_what(tmp_path: Path) -> None:
    app = tmp_path / "caller_app.py"
    app.write_text(
        "from perdure import task, workflow\n"
        "def hidden():\n"
        "    @task\n"
        "    async def nobody_has_this() -> int: return 1\n"
        "    return nobody_has_this\n"
        "box = [hidden()]\n"
        "@workflow\n"
        "async def calls() -> int: return await box[0]()\n"
        "@workflow\n"
        "async def fine() -> int: return 3\n"
    )
    with running_dev(app, tmp_path / "dev.sqlite") as dev:
        dev.perdure("start", "calls", "--id", "lonely")
        assert dev.perdure("start", "fine", "--wait") == 3
        shown = dev.perdure("show", "lonely")
        assert shown["status"] == "running"
        assert "nobody_has_this" in shown["waits_for"]
