"""While an app cannot be served, whoever waits for its code is told so, and why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure._worker.supervision import Broken, Ready
from perdure.cli.declared import read
from perdure.cli.locations import declared_path
from perdure.cli.standing import Standing
from perdure.cli.supervisor import Notice
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_schemas import topics
from tests.cli.dev_process import ENVIRONMENT, Dev, perdure, rewrite, running_dev, until, warned

APP = """
from perdure import Channel, query, update, workflow

@workflow
async def double(number: int) -> int:
    return 2 * number

@workflow
class Patient:
    go: Channel[int] = Channel()

    async def run(self) -> int:
        return await self.go.receive()

    @query
    def state(self) -> str:
        return "waits"

    @update
    async def add(self, number: int) -> int:
        return number
"""
CARELESS = """
import time

@workflow
async def careless() -> float:
    return time.time()
"""
REASON = "cannot be loaded: ModuleNotFoundError: No module named 'nope' (broken_app.py, line 22)"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Its app was loaded once, and is broken since."""
    folder = tmp_path_factory.mktemp("dev")
    app = folder / "broken_app.py"
    app.write_text(APP)
    with running_dev(app, folder / "dev.sqlite") as running:
        running.perdure("start", "Patient", "--id", "p")
        rewrite(app, APP + "import nope\n")
        running.wait_for("worker-broken")
        yield running


def told(dev: Dev, *arguments: str) -> str:
    """The first line on stderr that tells a reason, of a command that waits; empty: it has ended without."""
    command = [sys.executable, "-m", "perdure.cli", *arguments, "--db", str(dev.database)]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT, text=True)
    assert waiting.stderr is not None
    try:
        return next((line for line in waiting.stderr if " is " in line), "")
    finally:
        waiting.kill()
        waiting.wait()
        waiting.stderr.close()


@pytest.mark.parametrize(
    "command",
    [
        ("result", "p", "--wait"), ("update", "p", "add", "1"), ("query", "p", "state"), ("start", "double", "1", "-w"),
        ("cancel", "p", "--wait"),
    ],
)  # fmt: skip
def test_whoever_waits_for_its_code_is_told_why_it_does_not_run(dev: Dev, command: tuple[str, ...]) -> None:
    assert REASON in told(dev, *command)


def test_what_can_be_done_is_to_mend_it(dev: Dev) -> None:
    hint = dev.perdure("show", "p")["try"]
    assert hint.startswith("mend it: ")
    assert REASON in hint


def test_a_signal_is_taken_and_told_that_nothing_checks_it(dev: Dev) -> None:
    told = " ".join(warned("signal", "p", "numbers", '"no number"', "--db", str(dev.database)).split())
    assert REASON in told
    assert "so the channel and the value are not checked" in told


def test_a_start_is_taken_and_told_what_it_waits_for(dev: Dev) -> None:
    assert REASON in warned("start", "double", "1", "--db", str(dev.database))


def test_what_was_not_there_before_is_refused(dev: Dev) -> None:
    refused = dev.perdure("start", "duoble", "1", code=1)
    assert REASON in refused
    assert "--unchecked" in refused


def test_an_app_that_was_never_loaded_says_so_until_it_is_mended(tmp_path: Path) -> None:
    app = tmp_path / "broken_app.py"
    app.write_text(APP + "import nope\n")
    dev = Dev(app, tmp_path / "dev.sqlite")
    try:
        dev.wait_for("worker-broken")
        assert REASON in dev.perdure("start", "double", "1", code=1)
        assert not dev.perdure("list")
        rewrite(app, APP)
        dev.wait_for("worker-ready")
        assert dev.perdure("start", "double", "1", "--wait") == 2
    finally:
        dev.stop()


def test_a_workflow_that_the_guard_refuses_is_left_out_and_the_others_are_served(tmp_path: Path) -> None:
    app = tmp_path / "careless_app.py"
    app.write_text(APP + CARELESS)
    with running_dev(app, tmp_path / "dev.sqlite") as dev:
        assert dev.perdure("start", "double", "1", "--wait") == 2
        assert "time.time" in told(dev, "start", "careless", "--id", "c", "--wait")
        until(lambda: any(run["id"] == "c" for run in dev.perdure("list")))  # lists follow what happens
        hint = dev.perdure("show", "c")["try"]
        assert "is served without careless: workflow careless would come out differently" in hint
        rewrite(app, APP + CARELESS.replace("time.time()", "1.0"))
        until(lambda: dev.perdure("show", "c")["status"] == "completed")


def test_a_worker_that_ends_before_it_has_the_app_is_told_of(tmp_path: Path) -> None:
    standing = Standing("app.py", tmp_path / "dev.sqlite")
    standing.on(Notice("started", 1))
    standing.on(Notice("exited", 1, code=-11))
    assert "exit code -11" in standing.declared.broken
    standing.on(Notice("started", 2))
    standing.on(Notice("ready", 2, told=Ready(["double"], [])))
    standing.on(Notice("exited", 2, code=-9))
    declared = read(tmp_path / "dev.sqlite")
    assert declared is not None
    assert (declared.broken, declared.workflows) == ("", ["double"])
    standing.on(Notice("started", 3))
    standing.on(Notice("broken", 3, told=Broken("no")))
    assert (standing.declared.broken, standing.declared.workflows) == ("app.py cannot be loaded: no", ["double"])


@pytest.mark.asyncio
async def test_names_of_code_that_is_gone_are_announced_no_more(tmp_path: Path) -> None:
    ports = memory_ports(SystemClock())
    gone, other = ([topics.workflow_run(name, build) for build in (None, "dev")] for name in ("gone", "other"))
    await (await ports.broker.subscribe("ns", gone, "workers", "shared")).close()
    await ports.broker.subscribe("ns", other, "workers", "shared")
    standing = Standing("app.py", tmp_path / "dev.sqlite")
    assert (await standing.announced(ports, "ns")).workflows == ["gone", "other"], "no worker has told anything yet"
    standing.on(Notice("ready", 1, told=Ready(["double"], [])))
    assert (await standing.announced(ports, "ns")).workflows == ["double", "other"]


def test_the_api_of_a_perdure_dev_knows_as_much_as_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = tmp_path / "served_app.py"
    app.write_text(APP)
    dev = Dev(app, tmp_path / "dev.sqlite")
    try:
        url = dev.wait_for("api")["url"]
        until(declared_path(dev.database).exists)
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", url)
        assert "it is double(number: int)" in perdure("start", "double", '"s"', code=2)
        assert "double(number: int)" in perdure("start", "double", code=2)
        assert "has no workflow 'duoble'" in perdure("start", "duoble", "1", code=3)
        perdure("start", "lost", "--id", "l", "--unchecked")
        until(lambda: "l" in [run["id"] for run in perdure("list")])
        assert "has workflow lost" in perdure("show", "l")["try"]
        perdure("start", "Patient", "--id", "p")
        assert "cannot be read as int" in perdure("signal", "p", "go", '"x"', code=2)
        perdure("signal", "p", "go", '"x"', "--unchecked")
        assert "signal dropped" in [row["event"] for row in perdure("show", "p")["history"]]
    finally:
        dev.stop()
