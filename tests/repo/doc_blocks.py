"""Runs the blocks of a Markdown page, in order, in one empty folder, each in a process of its own.

- A `python` block is written to a file and run as a script. Its first line may name the file: `# app.py`.
  A `python program` is only written: what has no end is started by a `console` block.
- A `console` block holds commands (`$ …`), each followed by the output it must have; `...` stands for any text.
  One that ends with ` &` runs until the end of the page; the page goes on when it has printed something, and a
  `perdure dev` that its worker is ready, for a start would be warned that nobody has announced its workflow, and that
  its API listens.
- An `output` block is what the block before it must have printed; `...` as above.
- A `yaml` or `dockerfile` block whose first line names a file, `# worker.yaml`, is written to it.
- A `console cluster` block is as a `console` block, for Perdure on Kubernetes: tests/e2e runs it, other tests do not.
- Any other block is text. `sh` is for commands that cannot be run here, as those that install something.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.repo import commands

_FENCE = re.compile(r"^```([\w ]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/-]+(?:\.\w+)?)$")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    return [
        Block(match.group(1), match.group(2), page.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(page)
    ]


@dataclass(slots=True)
class Shell:
    """Where the commands of `console` blocks run."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Of the environment, beside those of this process."""

    def run(self, command: str) -> tuple[int, str]:
        """(exit code, standard output and error together)."""
        return commands.run(["sh", "-c", command], self.folder, COLUMNS="120", **self.variables)


def has_runnable(page: str) -> bool:
    return any(block.language in {"python", "console"} for block in blocks(page))


def problems(page: str, folder: Path, python: Path = commands.BIN / "python") -> Iterator[str]:
    """What does not do as the page says. Nothing, if the page is true."""
    with contextlib.ExitStack() as background:
        yield from _problems(page, folder, python, background)


def _problems(page: str, folder: Path, python: Path, background: contextlib.ExitStack) -> Iterator[str]:
    printed, shell = "", Shell(folder)
    for block in blocks(page):
        match block.language:
            case "python":
                code, printed = commands.run([python, _script(block, folder)], folder)
                if code != 0:
                    yield f"line {block.line}: ended with {code}:\n{printed}"
            case "console":
                printed = yield from console(block, shell, background)
            case "output":
                if not matches(block.text, printed):
                    yield f"line {block.line}: printed\n{printed}\nexpected:\n{block.text}"
            case _:
                write(block, folder)


def console(block: Block, shell: Shell, background: contextlib.ExitStack) -> Generator[str, None, str]:
    """What is wrong; at last, what its last command printed."""
    printed = ""
    for command, expected in console_commands(block.text):
        if command.endswith(" &"):
            background.enter_context(_running(command.removesuffix(" &"), shell))
            continue
        code, printed = shell.run(command)
        if code != 0 or not matches(expected, printed):
            yield f"line {block.line}: $ {command}\nended with {code}:\n{printed}\nexpected:\n{expected}"
    return printed


@contextlib.contextmanager
def _running(command: str, shell: Shell) -> Iterator[None]:
    """In the background; ended, with all that it started, when the page is done."""
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=shell.folder,
        env=commands.environment(**shell.variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        awaited = {b'"worker-ready"', b'"api"'} if command.startswith("perdure dev") else {b""}
        while awaited and (line := process.stdout.readline()):
            awaited = {each for each in awaited if each not in line}
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=commands.SECONDS_MAX)


def matches(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in _trimmed(expected).split("..."))
    return re.fullmatch(pattern, _trimmed(printed), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def write(block: Block, folder: Path) -> Path | None:
    """Where a block that names its file is; None: it names none."""
    named = _FILE.match(block.text.partition("\n")[0])
    if named is None or block.language not in {"python", "python program", "yaml", "dockerfile"}:
        return None
    path = folder / named.group(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")
    return path


def _script(block: Block, folder: Path) -> Path:
    path = write(block, folder)
    if path is None:
        path = folder / f"block_{block.line}.py"
        path.write_text(block.text, encoding="utf-8")
    return path


def console_commands(text: str) -> Sequence[tuple[str, str]]:
    """(command, what it must print) of a `console` block."""
    return [
        (command, expected) for command, _, expected in (part.partition("\n") for part in f"\n{text}".split("\n$ ")[1:])
    ]
