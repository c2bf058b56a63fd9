"""What holds for every test of the tree."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from perdure._replay.guard import seeds
from tests.cluster import provision as kubernetes
from tests.servers import provision

# A test run is the same for everybody, on machines of any speed; HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


_SERVERS = pytest.StashKey[bool]()
_FIRST = ("test_chaos_cluster.py", "test_sdk_on_servers.py")
_ON_CLUSTER = ("tests/charts/test_charts_on_server.py", "tests/e2e/")
"""Beginnings of the paths of what changes what a whole cluster has one of, as definitions: one after the other."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVERS] = provision.prepare()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Only the process that chose where servers live ends them: not a worker, nor a session within a test."""
    if config.stash.get(_SERVERS, False):
        provision.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first: at the end the other processes would only wait for it."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()) and not item.nodeid.startswith(_ON_CLUSTER):
            raise pytest.UsageError(f"{item.nodeid} uses the cluster: name it in _ON_CLUSTER of tests/conftest.py")
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """Who installs on Kubernetes wants the machine alone meanwhile, and would only wait beside who has it."""
    if item.path.name in _FIRST:
        return _FIRST.index(item.path.name)
    place = next((place for place, begin in enumerate(_ON_CLUSTER) if item.nodeid.startswith(begin)), len(_ON_CLUSTER))
    return len(_FIRST) + place


class _Together(LoadFileScheduling):  # type: ignore[misc]  # xdist tells no types
    """A file's tests are run by one process; and so are all on the cluster, which share what one of them installs."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "on the cluster" if file.startswith(_ON_CLUSTER) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return _Together(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def same_hash_seed() -> Iterator[None]:
    """Whoever opens a file again in a test does so in the same process, whose seed is the same however random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "is_random", lambda: False)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[kubernetes.Cluster]:
    """A real Kubernetes cluster; skips the tests where there can be none, unless that is a failure."""
    try:
        with kubernetes.cluster() as found:
            yield found
    except (kubernetes.NoCluster, kubernetes.NoTools) as error:
        if provision.required():
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def chart_tools() -> Path:
    """Where helm, helm-unittest and kubeconform are; skips like `cluster`."""
    try:
        return kubernetes.tools()
    except kubernetes.NoTools as error:
        if provision.required():
            raise
        pytest.skip(str(error))


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
