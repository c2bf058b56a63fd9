"""Every example runs top to bottom, and says what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPECTED = {
    "hello.py": "Hello, world!\n",
    "parallel.py": "8 words\nturin was the fastest\n",
    "saga.py": (
        "a unicorn: refunded\n"
        "a lamp: *the carrier does not answer*\n"
        "after resume: parcel-o-2\n"
        "charge o-1 900\nrefund receipt-o-1\ncharge o-2 500\nreserve o-2 lamp\nship o-2\n"
    ),
    "approval.py": ("votes so far: ['Ada']\nbudget: approved by Ada and Grace\nparty: expired with 0 of 2 votes\n"),
    "children.py": "{'Rhine': '5.15 m', 'Lethe': 'unknown', 'Loire': '5.15 m'}\n",
}


def test_every_example_is_expected_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example(name: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60, check=False, cwd=EXAMPLES
    )
    assert done.returncode == 0, done.stderr
    check(name, done.stdout)


def check(name: str, printed: str) -> None:
    """That an example said what it should."""
    expected = EXPECTED[name].splitlines()
    told = printed.splitlines()
    assert len(told) == len(expected), printed
    for line, pattern in zip(told, expected, strict=True):
        start, star, rest = pattern.partition("*")
        assert line == pattern if not star else line.startswith(start) and rest.strip("*") in line, line
