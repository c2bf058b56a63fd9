"""What is wrong with a run is shown, and what can be typed about it is what works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from perdure._replay.guard import seeds
from perdure.cli import remedies
from perdure_schemas.events import Recorded, RunEnded
from perdure_schemas.messages import RunChanged
from tests.cli.dev_process import ENVIRONMENT, Dev, running_dev, until

APP = """
from perdure import Channel, TaskFailed, WorkflowError, task, workflow

@task
async def add(left: int) -> int:
    return left + 1

@task
async def parse(text: str) -> int:
    return int(text)

@workflow
async def parsed(text: str) -> int:
    return await parse(text)

@workflow
async def made_up_for(text: str) -> int:
    try:
        return await parse(text)
    except TaskFailed:
        await add(1)
        raise

@workflow
async def translated(text: str) -> int:
    try:
        return await parse(text)
    except TaskFailed as error:
        raise ValueError("domain error") from error

@workflow
async def outer(text: str) -> int:
    return await parsed(text)

@workflow
async def refuses(text: str) -> int:
    raise WorkflowError("no")

@workflow
async def says_nothing(n: int) -> int:
    raise ValueError

@workflow
class Votes:
    names: Channel[str] = Channel()

    async def run(self) -> str:
        return await self.names.receive()
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "voting_app.py").write_text(APP)
    with running_dev(folder / "voting_app.py", folder / "dev.sqlite") as running:
        yield running


def table(dev: Dev, *arguments: str) -> str:
    command = [sys.executable, "-m", "perdure.cli", *arguments, "-o", "table", "--db", str(dev.database)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT).stdout


def typed(told: str, option: str) -> list[str]:
    """The arguments of `perdure resume` with the given option, as told, its placeholder filled in."""
    found = re.search(rf"{option} (\d\S*?)=('?\[ARGUMENTS\]'?|RESULT)", told)
    assert found is not None, told
    value = '["7"]' if "ARGUMENTS" in found[2] else "7"
    return [option, f"{found[1]}={value}"]


@pytest.mark.parametrize("option", ["--edit", "--skip"])
@pytest.mark.parametrize("command", ["result", "show"])
def test_a_task_that_fails_again_is_named_with_its_position(option: str, command: str, dev: Dev) -> None:
    id = f"parsed-{option}-{command}"
    told = dev.perdure("start", "parsed", '"seven"', "--id", id, "--wait", code=1)
    if command == "show":
        told = table(dev, "show", id)
    assert f"perdure resume {id}   (if task parse fails again:" in told
    dev.perdure("resume", id, *typed(told, option))
    assert dev.perdure("result", id, "--wait") == 7


@pytest.mark.parametrize("option", ["--edit", "--skip"])
def test_a_run_stuck_with_a_failure_that_its_code_caught_is_told_what_takes_it_back(option: str, dev: Dev) -> None:
    id = f"translated-{option}"
    dev.perdure("start", "translated", '"seven"', "--id", id)
    until(lambda: dev.perdure("show", id)["status"] == "stuck")
    told = dev.perdure("show", id)["try"]
    assert f"perdure reset {id} --to 0" in told
    assert "(it has the failure of task parse)" in told
    dev.perdure("resume", id, *typed(told, option))
    assert dev.perdure("result", id, "--wait") == 7


@pytest.mark.parametrize("how", ["child", "skip"])
@pytest.mark.parametrize("command", ["result", "show"])
def test_a_child_that_fails_again_is_edited_under_its_own_id(how: str, command: str, dev: Dev) -> None:
    id = f"outer-{how}-{command}"
    told = dev.perdure("start", "outer", '"seven"', "--id", id, "--wait", code=1)
    if command == "show":
        told = dev.perdure("show", id)["try"]
    assert "--edit 0=" not in told
    (child,) = re.findall(r"perdure resume (\S+) --edit POSITION='\[ARGUMENTS\]'", told)
    if how == "child":
        dev.perdure("resume", child, "--edit", '0=["7"]')
    else:
        dev.perdure("resume", id, *typed(told, "--skip"))
    assert dev.perdure("result", id, "--wait") == 7


@pytest.mark.parametrize("command", ["result", "show"])
def test_after_what_made_up_for_the_failure_the_flag_is_named(command: str, dev: Dev) -> None:
    id = f"made-up-{command}"
    told = dev.perdure("start", "made_up_for", '"seven"', "--id", id, "--wait", code=1)
    if command == "show":
        told = table(dev, "show", id)
    (hint,) = re.findall(rf"perdure (resume {id} --anyway)   \(add at 1 stays done\)", told)
    assert f"perdure reset {id} --to POSITION" in told
    dev.perdure(*shlex.split(hint))


def test_a_run_that_its_own_code_failed_wants_other_code(dev: Dev) -> None:
    told = dev.perdure("start", "refuses", '"x"', "--id", "refused", "--wait", code=1)
    assert "then   perdure resume refused   once its code is mended" in told


@pytest.mark.parametrize(
    ("ended", "resumable"),
    [
        (RunEnded(status="failed"), True),
        (RunEnded(status="failed", final=True), False),
        (RunEnded(status="timed-out"), False),
        (RunEnded(status="canceled"), False),
    ],
)
def test_what_cannot_be_resumed_is_not_said_to_be(ended: RunEnded, resumable: bool) -> None:
    told = remedies.for_failed("r-1", [Recorded(seq=2, at=0, cause="", event=ended)])
    assert told == ("perdure resume r-1   once its code is mended" if resumable else "")


def test_an_error_without_words_has_its_name_alone(dev: Dev) -> None:
    dev.perdure("start", "says_nothing", "1", "--id", "silent")
    until(lambda: dev.perdure("show", "silent")["status"] == "stuck")
    assert dev.perdure("show", "silent")["last_error"] == "ValueError"
    dev.perdure("terminate", "silent")


def test_a_signal_that_the_code_drops_is_shown_as_dropped(dev: Dev) -> None:
    dev.perdure("start", "Votes", "--id", "votes")
    dev.perdure("signal", "votes", "names", "5", "--unchecked")
    dev.perdure("signal", "votes", "names", '"Ada"')
    assert dev.perdure("result", "votes", "--wait") == "Ada"
    signals = [row for row in dev.perdure("show", "votes")["history"] if row["event"].startswith("signal")]
    assert [row["event"] for row in signals] == ["signal dropped", "signal received"]
    assert signals[0]["detail"].startswith("names: 5   a signal of names cannot be read as str")
    assert "signal dropped" in table(dev, "show", "votes")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("WorkflowChangedError: position 0", ["bring back code that fits", "perdure reset r-1 --to POSITION"]),
        (f"WorkflowChangedError: {seeds.STRANGE} than", ["PYTHONHASHSEED=0", "PERDURE_GUARD=warn", "terminate r-1"]),
        ("WorkerDied: 3 workers died", ["perdure resume r-1", "perdure terminate r-1"]),
        ("NameError: name", ["mend the code: the worker loads it again", "or perdure terminate r-1"]),
        ("TimeoutError", ["mend the code", "to let the run fail on purpose, raise perdure.WorkflowError"]),
    ],
)
def test_a_stuck_run_is_told_what_its_kind_of_trouble_wants(error: str, words: list[str]) -> None:
    run = RunChanged(
        workflow_id="r-1", run_id="r", name="w", status="stuck", generation=0, version=1,
        started_at=0, changed_at=0, last_error=error,
    )  # fmt: skip
    told = remedies.for_stuck(run, [])
    assert all(word in told for word in words)
    if error.startswith("WorkerDied"):
        assert "on purpose" not in told
