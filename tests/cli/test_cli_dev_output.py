"""What a `perdure dev` and its worker write: lines for people on a terminal, else one JSON object a line."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from perdure.cli.dev import Announcer
from perdure.cli.dev_api import HOST
from perdure.cli.locations import DATABASE
from tests.cli.dev_process import ENVIRONMENT, WAIT_SECONDS, dev_command, perdure, rewrite, running_dev, until

APP = """
import logging
import warnings

from perdure import task, workflow

@task
async def parse(text: str) -> int:
    return int(text)

logging.getLogger("app").warning("logged at import")
warnings.warn("warned at import")

@workflow
async def unordered() -> list[str]:
    return [each for each in {"a", "b"}]

@workflow
async def parsed(text: str) -> int:
    return await parse(text)
"""


def test_where_nobody_reads_along_the_logs_are_json_too(tmp_path: Path) -> None:
    app = tmp_path / "logged_app.py"
    app.write_text(APP)
    with running_dev(app, tmp_path / "dev.sqlite") as dev:
        dev.perdure("start", "parsed", '"seven"', "--wait", code=1)
        until(lambda: "task_failed" in dev.errors)
        rewrite(app, APP + "\ndef broken(:\n")
        until(lambda: "waits for a change" in dev.errors)
    lines = [json.loads(line) for line in dev.errors.splitlines()]
    actions = [line.get("action") for line in lines]
    assert lines[0]["message"] == "logged at import"
    assert "UserWarning: warned at import" in lines[1]["message"]
    assert actions[2:4] == ["nondeterminism", "task_failed"]
    assert "app_broken" in actions
    assert "SyntaxError" in lines[actions.index("app_broken")]["message"]


def _taken() -> socket.socket:
    """Holds a port that nobody else asks for: the usual one may be taken, or set free, by a neighbour at any time."""
    taken = socket.socket()
    taken.bind((HOST, 0))
    taken.listen()
    return taken


def test_on_a_terminal_nothing_is_json(tmp_path: Path) -> None:
    """With the usual port taken, which is told on one line with what chooses another."""
    (tmp_path / "logged_app.py").write_text(APP)
    database = tmp_path / "dev.sqlite"
    taken = _taken()
    port = taken.getsockname()[1]
    ours, theirs = pty.openpty()
    command = dev_command(
        tmp_path / "logged_app.py", database, f"from perdure.cli import dev_api\ndev_api.PORT = {port}"
    )
    dev = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    written, decoder = "", codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
    try:
        while "worker ready" not in written or "API at" not in written:
            written += decoder.decode(os.read(ours, 65_536))
        perdure("start", "parsed", '"seven"', "--wait", "--db", str(database), code=1)
        while "ValueError: " not in written:
            written += decoder.decode(os.read(ours, 65_536))
    finally:
        dev.terminate()
        dev.wait(timeout=WAIT_SECONDS)
        os.close(ours)
        taken.close()
    assert "task_failed: attempt 1 of parse" in written
    assert f"port {port} is in use, so the API is at another; --port chooses one" in re.sub("\x1b[^m]*m", "", written)
    assert not [line for line in written.splitlines() if line.startswith("{")]


def test_the_first_lines_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    announcer = Announcer("examples/hello.py", DATABASE, time.perf_counter())
    announcer.plain = True
    announcer.ready()
    lines = capsys.readouterr().out.splitlines()
    assert "Ctrl-C ends it" in lines[0]
    assert str(DATABASE) in lines[1]
    assert max(map(len, lines)) <= 80
