"""Every example, and every SDK test that needs no virtual clock, on real servers with two replicas of each engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.test_examples import EXAMPLES, EXPECTED, check
from tests.servers import clean
from tests.servers.replicas import LONG

pytestmark = pytest.mark.timeout(1_800)

_OF_THE_CLIENT_LIBRARY = re.compile(r"^[-\d]{10} [:.\d]+ [A-Z]+ +\[.*\n", re.MULTILINE)
"""Pulsar's library logs to standard output."""
ROOT = Path(__file__).parents[2]
FOLDERS = ("tests/sdk/semantics", "tests/sdk/surface", "tests/sdk/payloads") if LONG else ("tests/sdk/payloads",)
"""All of them take 10 minutes and more: `make figures` runs them."""
TESTS_MIN = 110 if LONG else 2
"""Of their tests so many run on the servers: nobody may have stopped to without being seen."""


def test_the_tests_of_the_sdk_pass_unchanged() -> None:
    clean.real_servers()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.servers.on_servers", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *FOLDERS], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    told = re.search(r"(\d+) of (\d+) tests on real servers passed", done.stdout)
    assert told is not None, done.stdout
    assert told[1] == told[2]
    assert int(told[1]) >= TESTS_MIN


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_example_says_the_same(name: str) -> None:
    clean.real_servers()
    command = [sys.executable, "-m", "tests.servers.on_servers", str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    check(name, _OF_THE_CLIENT_LIBRARY.sub("", done.stdout))
