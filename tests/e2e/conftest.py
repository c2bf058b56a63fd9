"""Perdure on a real cluster, installed once for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.provision import Cluster
from tests.e2e import release
from tests.e2e.pools import ERRAND, TOIL, Errands
from tests.e2e.release import Release, Steps
from tests.servers import provision

_FIRST = ("test_e2e_install.py",)
_LAST = ("test_e2e_docs.py", "test_e2e_uninstall.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One release serves all of them: who looks at how it came goes first, and who takes it away last."""
    places = [number for number, item in enumerate(items) if item.path.parent.name == "e2e"]
    ours = sorted((items[number] for number in places), key=lambda item: _turn(item.path.name))
    for number, item in zip(places, ours, strict=True):
        items[number] = item


def _turn(name: str) -> int:
    return -1 if name in _FIRST else _LAST.index(name) + 1 if name in _LAST else 0


@pytest.fixture(scope="session")
def steps() -> Steps:
    report = images.ROOT / "build/e2e/report.txt"
    report.parent.mkdir(parents=True, exist_ok=True)
    form = "long" if release.LONG else "short"
    report.write_text(f"{date.today()}, {os.cpu_count()} cores, {form} form\n")
    return Steps(report)


@pytest.fixture(autouse=True)
def titled(request: pytest.FixtureRequest, steps: Steps) -> None:
    """The report has the tests' names over their steps."""
    steps.say(request.node.name.removeprefix("test_").replace("_", " "))


@pytest.fixture(scope="package")
def installed(cluster: Cluster, steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder: Path = tmp_path_factory.mktemp("release")
    found = release.prepared(cluster, folder)
    try:
        with provision.alone():
            for group in images.GROUPS:
                with steps.step(f"images built and loaded: {', '.join(image.name for image in group)}"):
                    cluster.load(group)
            release.uninstall(cluster)
            with steps.step("helm install: servers, migrations and all services ready"):
                found.install()
        yield found
    finally:
        release.uninstall(cluster)


@pytest.fixture(scope="package")
def errands(installed: Release, steps: Steps) -> Errands:
    found = Errands(installed)
    with steps.step("ledger ready"):
        found.prepare()
    return found


@pytest.fixture(scope="module")
def serving(errands: Errands) -> Iterator[Errands]:
    """With one pod for the workflow `errand` and one for its task."""
    with errands.declared(ERRAND, TOIL):
        errands.await_pods("workflow", "errand", 1)
        errands.await_pods("worker", "toil", 1)
        yield errands
