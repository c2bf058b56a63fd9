"""What holds for every test of the tree."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

from tests.servers import provision

# A test run is the same for everybody, on machines of any speed; HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


_SERVERS = pytest.StashKey[bool]()
_LONG = frozenset({"test_chaos_cluster.py", "test_sdk_on_servers.py"})


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVERS] = provision.prepare()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Only the process that chose where servers live ends them: not a worker, nor a session within a test."""
    if config.stash.get(_SERVERS, False):
        provision.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first: at the end the other processes would only wait for it."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Reports are made without garbage collection.

    To show a failure pytest parses its source. On CPython 3.11 parsing breaks (`SystemError: AST constructor
    recursion depth mismatch`) when a finalizer runs meanwhile and prints a traceback, which parses too; and some tests
    leave things behind that resist being closed, on purpose.
    """
    enabled = gc.isenabled()  # a fixture may have disabled it for the whole test, of which there are three reports
    gc.disable()
    try:
        return (yield)
    finally:
        if enabled:
            gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip, however many tests have it."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    for reason, tests in reasons.items():
        terminalreporter.write_line(f"{tests} tests {reason[0].lower()}{reason[1:]}")
