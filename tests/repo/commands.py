"""Runs the project's tools as a contributor does, from the root, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.repo import tree

BIN = Path(sys.executable).parent
SECONDS_MAX = 300
"""A type checker on a cold cache and a busy machine; far above what is usual."""


def environment(**more: str) -> dict[str, str]:
    """Of the commands: the tools of this interpreter come first."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1", **more}


def run(arguments: Sequence[str | Path], folder: Path = tree.ROOT, **more: str) -> tuple[int, str]:
    """(exit code, standard output and error together)."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode, done.stdout


def check(arguments: Sequence[str | Path], folder: Path = tree.ROOT, **more: str) -> str:
    """The output; fails the test, with the output, when the command fails."""
    code, output = run(arguments, folder, **more)
    assert code == 0, f"{' '.join(map(str, arguments))} ended with {code}:\n{output}"
    return output
