"""What kills a worker, or wants a worker that does not exist: with real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.dev_process import Dev, rewrite, running_dev, until

APP = Path(__file__).with_name("hostile_app.py")


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    with running_dev(APP, tmp_path / "dev.sqlite") as running:
        yield running


def test_a_task_that_kills_its_worker_three_times_fails_as_worker_died(dev: Dev, tmp_path: Path) -> None:
    log = tmp_path / "deaths"
    dev.perdure("start", "deadly", f'"{log}"', "--id", "deadly")
    dev.perdure("start", "neighbour", "1", "--id", "neighbour")
    told = dev.perdure("result", "deadly", "--wait", code=1)
    assert "WorkerDied" in told
    assert len(set(log.read_text().split())) == 3
    assert dev.perdure("result", "neighbour", "--wait") == 8
    assert dev.perdure("start", "neighbour", "2", "--wait") == 16


def test_a_workflow_that_kills_its_worker_three_times_is_stuck(dev: Dev) -> None:
    dev.perdure("start", "deadly_turn", "--id", "deadly")
    until(lambda: dev.perdure("show", "deadly")["status"] == "stuck")
    assert "WorkerDied: 3 workers died" in dev.perdure("result", "deadly", code=1)
    dev.perdure("terminate", "deadly")
    assert dev.perdure("show", "deadly")["status"] == "terminated"


@pytest.mark.timeout(240)
def test_a_neighbour_of_a_deadly_workflow_does_not_die_with_it(dev: Dev) -> None:
    """It waits for three workers to start, which takes each of them some seconds where everybody works."""
    dev.perdure("start", "deadly_turn", "--id", "deadly")
    dev.perdure("start", "neighbour", "1", "--id", "neighbour")
    assert dev.perdure("result", "neighbour", "--timeout", "120") == 8


def test_a_workflow_that_no_worker_has_is_refused_at_the_start(dev: Dev) -> None:
    told = dev.perdure("start", "neighbor", "1", code=3)
    assert "has no workflow 'neighbor'" in told
    assert "one of: neighbour, " in told
    assert dev.perdure("list") == []


def test_a_workflow_that_no_worker_has_yet_waits_and_says_for_what(dev: Dev) -> None:
    """A worker that has it may be on its way (a deployment): the caller says so."""
    dev.perdure("start", "nobody_has_this", "1", "--id", "lonely", "--unchecked")
    told = dev.perdure("result", "lonely", code=1)
    assert "still open: running, waits for a worker that has workflow nobody_has_this" in told
    assert dev.perdure("show", "lonely")["status"] == "running"
    assert dev.perdure("start", "neighbour", "1", "--wait") == 8


@pytest.mark.parametrize("wrong", [["three"], ["1", "2"], [], ["null"], ["1.5"]])
def test_arguments_that_do_not_fit_are_refused_at_the_start(wrong: list[str], dev: Dev) -> None:
    arguments = [f'"{each}"' if each.isalpha() and each != "null" else each for each in wrong]
    told = dev.perdure("start", "neighbour", *arguments, code=2)
    assert "neighbour" in told
    assert "try: it is neighbour(number: int)" in told
    assert dev.perdure("list") == []


def test_arguments_that_do_not_fit_fail_the_run_where_nobody_checked(dev: Dev) -> None:
    told = dev.perdure("start", "neighbour", '"three"', "--unchecked", "--wait", code=1)
    assert "InvalidArguments: argument 'number' of neighbour cannot be read as int" in told
    assert dev.perdure("start", "neighbour", "1", "--wait") == 8


def test_waiting_for_a_stuck_run_tells_why_and_that_its_code_may_be_mended(tmp_path: Path) -> None:
    app = tmp_path / "buggy_app.py"
    app.write_text("from perdure import workflow\n@workflow\nasync def buggy(): return undefined_name\n")
    with running_dev(app, tmp_path / "dev.sqlite") as dev:
        dev.perdure("start", "buggy", "--id", "bug")
        until(lambda: dev.perdure("show", "bug")["status"] == "stuck")
        told = dev.perdure("result", "bug", code=1)
        assert "still open: stuck, NameError: name 'undefined_name' is not defined" in told
        until(lambda: "workflow_stuck: run bug of buggy" in dev.errors)
        assert "async def buggy(): return undefined_name" in dev.errors, "the worker shows the line"
        rewrite(app, app.read_text().replace("undefined_name", "7"))
        assert dev.perdure("result", "bug", "--wait") == 7


def test_a_task_that_no_worker_has_waits_and_says_for_what(tmp_path: Path) -> None:
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
        until(lambda: "nobody_has_this" in (dev.perdure("show", "lonely")["waits_for"] or ""))
        assert dev.perdure("show", "lonely")["status"] == "running"
        told = dev.perdure("result", "lonely", code=1)
        assert "waits for task nobody_has_this, which" in told
        until(lambda: "task_unknown_here: workflow calls waits for task nobody_has_this" in dev.errors)


def test_a_blocked_loop_is_told_on_the_terminal_with_its_line(dev: Dev, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    dev.perdure("start", "blocked", f'"{pipe}"', "--id", "blocked")
    until(lambda: "task_blocks_loop" in dev.errors)
    assert "in block: Path(pipe).read_text()" in dev.errors
    pipe.write_text("")
    assert dev.perdure("result", "blocked", "--wait") == "done"
