"""What a person mistypes, or stops at once: told in a line, without a traceback, and with what to type instead."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perdure.cli.application import application
from perdure.cli.looks import _run_table
from perdure.cli.output import Problem
from perdure.cli.session import parse_assignments, parse_json
from perdure_runtime.ports import RunFilter
from tests.cli.dev_process import ENVIRONMENT, WAIT_SECONDS, Dev, perdure

APP = str(Path(__file__).with_name("sample_app.py"))
INTERRUPTED = """
import os, signal, sys
from perdure.cli import main

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["perdure", "run", {app!r}, "plus", "1", "1"]
main()
"""


@pytest.mark.parametrize("module", ["perdure.cli.application", "perdure.client", "perdure.worker"])
def test_control_c_ends_a_command_without_a_word_whatever_it_is_at(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module, app=APP)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_is_a_wrong_use(port: str, tmp_path: Path) -> None:
    assert "'--port'" in perdure("dev", APP, "--db", str(tmp_path / "dev.sqlite"), "--port", port, code=2)
    assert not list(tmp_path.iterdir())


def test_an_app_that_can_be_none_is_told_before_anything_is_made(tmp_path: Path) -> None:
    database = str(tmp_path / "dev.sqlite")
    for app, told in ((str(tmp_path), "is a folder"), (".", "'.' is a folder"), ("no file", "neither a file nor")):
        assert told in perdure("dev", app, "--db", database, code=2)
    assert not list(tmp_path.iterdir())


def test_an_app_without_anything_in_it_is_told(tmp_path: Path) -> None:
    app = tmp_path / "empty.py"
    app.touch()
    dev = Dev(app, tmp_path / "dev.sqlite")
    try:
        assert "declares no workflow and no task" in dev.wait_for("worker-ready")["problem"]
    finally:
        dev.stop()


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    told = " ".join(perdure("dev", APP, "--db", str(tmp_path / "none/x.sqlite"), code=1).split())
    assert f"x.sqlite cannot be made: there is no folder {tmp_path / 'none'}" in told
    assert f"try: mkdir -p {tmp_path / 'none'}" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [("--db", "x.sqlite"), ("-n", "staging"), ("--output", "json"), ("--run", "r-1")])
def test_an_option_before_the_command_is_told_where_it_goes(option: tuple[str, str]) -> None:
    given, value = option
    told = " ".join(perdure(*option, "list", code=2).split())
    name = "--namespace" if given == "-n" else given
    assert told == f"error: {name} goes after the command try: perdure COMMAND … {name} {value}"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = perdure("dev", APP, "--db", str(tmp_path / "file/x.sqlite"), code=1)
    assert "x.sqlite cannot be made: File exists" in told
    assert "try: --db" in told
    assert "Traceback" not in told


def test_garbage_is_no_database_and_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    file.write_text("garbage, and more of it " * 100)
    told = perdure("dev", APP, "--db", str(file), code=1)
    assert "is no database of Perdure: file is not a database" in told
    assert "try: move it away, or --db another.sqlite" in told
    assert file.read_text().startswith("garbage")


def test_the_database_of_another_program_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE messages (text)")
    connection.close()
    before = file.read_bytes()
    told = perdure("dev", APP, "--db", str(file), code=1)
    assert "is the database of another program: it has a table messages" in told
    assert "try: move it away, or --db another.sqlite" in told
    assert file.read_bytes() == before


def test_what_matches_nothing_is_not_said_to_be_nothing_at_all() -> None:
    assert "no runs with status stuck, tag blue   try: perdure list" in str(
        _run_table([], where=RunFilter(status="stuck", tag="blue"))
    )
    assert "try: perdure start" in str(_run_table([], where=RunFilter()))


def test_a_bare_word_is_told_as_such_and_broken_json_with_what_is_wrong() -> None:
    with pytest.raises(Problem, match=r"^--skip 0 is not JSON: 'foo'$") as raised:
        parse_assignments(["0=foo"], "--skip")
    assert raised.value.hint == "'\"foo\"'"
    with pytest.raises(Problem, match=r"is not JSON: '\[1, 2' \(.*truncated"):
        parse_json("[1, 2", "argument 1")


def test_a_position_that_is_given_twice_is_a_wrong_use() -> None:
    with pytest.raises(Problem, match="--edit 4 is given more than once"):
        parse_assignments(["4=[1]", "4=[2]"], "--edit")


def test_a_time_out_that_is_negative_is_a_wrong_use() -> None:
    done = CliRunner().invoke(application, ["result", "some", "--timeout", "-1"])
    assert done.exit_code == 2
    assert "'--timeout'" in done.output


@pytest.mark.parametrize("command", [["result"], ["show"], ["signal"], ["cancel"], ["resume"]])
@pytest.mark.parametrize("id", ["", "a\nb", "x" * 401])
def test_what_cannot_be_an_id_is_a_wrong_use(command: list[str], id: str) -> None:
    done = CliRunner().invoke(application, [*command, id, *(["go"] if command == ["signal"] else [])])
    assert done.exit_code == 2
    assert "a workflow id is 1 to 400" in " ".join(done.output.split())


def test_a_reset_to_nowhere_is_a_wrong_use() -> None:
    done = CliRunner().invoke(application, ["reset", "some", "--to", ""])
    assert done.exit_code == 2
    assert "a position is one such as 4" in " ".join(done.output.split())


@pytest.mark.parametrize("group", [[], ["admin"], ["admin", "dlq"]])
def test_no_summary_is_cut(group: list[str]) -> None:
    told = CliRunner(env={"COLUMNS": "80"}).invoke(application, [*group, "--help"]).output
    assert "..." not in told.partition("Commands:")[2]
    assert "Commands:" in told
