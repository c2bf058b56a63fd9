"""A `perdure dev` as a child process, and `perdure` commands against it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

ENVIRONMENT = {**os.environ, "PYTHONHASHSEED": "0", "NO_COLOR": "1"}
WAIT_SECONDS = 90.0
"""For what never comes: processes that take half a second to start take many where everybody works."""


def dev_command(app: Path, database: Path, changes: str = "") -> list[str]:
    """`changes`: statements that are executed first, in its process."""
    program = ["-c", f"{changes}\nfrom perdure.cli import main\nmain()"] if changes else ["-m", "perdure.cli"]
    return [sys.executable, *program, "dev", str(app), "--db", str(database)]


class Dev:
    """A running `perdure dev`. `notices` are the JSON lines it prints, which `wait_for` takes."""

    def __init__(self, app: Path, database: Path, changes: str = "") -> None:
        self.database = database
        self.process = subprocess.Popen(
            dev_command(app, database, changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        self._notices: queue.Queue[dict[str, Any]] = queue.Queue()
        self._errors: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_notices, args=(self.process.stdout,)),
            threading.Thread(target=self._read_errors, args=(self.process.stderr,)),
        ]
        for reader in self._readers:
            reader.start()

    def _read_notices(self, lines: IO[str]) -> None:
        for line in lines:
            self._notices.put(json.loads(line))

    def _read_errors(self, lines: IO[str]) -> None:
        self._errors.extend(lines)

    @property
    def errors(self) -> str:
        """What it, its worker and user code printed to stderr so far."""
        return "".join(self._errors)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next notice of this kind; those before it are dropped."""
        while True:
            try:
                notice = self._notices.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                raise AssertionError(f"no {event!r} within {WAIT_SECONDS} s; stderr: {self.errors}") from None
            if notice["event"] == event:
                return notice

    def perdure(self, *arguments: str, code: int = 0) -> Any:
        """Runs a command against it, checks the exit code; returns what it prints as JSON, or on errors its stderr."""
        return perdure(*arguments, "--db", str(self.database), code=code)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=WAIT_SECONDS)
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def running_dev(app: Path, database: Path) -> Iterator[Dev]:
    """A `perdure dev` whose worker is ready."""
    dev = Dev(app, database)
    try:
        dev.wait_for("worker-ready")
        yield dev
    finally:
        dev.stop()


def perdure(*arguments: str, code: int = 0) -> Any:
    """As `Dev.perdure`, against nothing in particular."""
    done = _ended(*arguments, code=code)
    if code:
        return done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def warned(*arguments: str) -> str:
    """What a command that succeeds prints to stderr."""
    return _ended(*arguments, code=0).stderr


def _ended(*arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "perdure.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_SECONDS,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == code, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done


def rewrite(path: Path, text: str) -> None:
    """At once, as editors do: who looks at it meanwhile must not find half of it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def until(condition: Callable[[], object]) -> None:
    """Waits until it holds; fails when it does not within WAIT_SECONDS."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, "it never came to be"
        time.sleep(0.01)
