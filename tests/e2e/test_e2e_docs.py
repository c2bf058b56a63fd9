"""The pages about Kubernetes are true: their `console cluster` blocks run, in order, against the installed release.

A release stands where the pages say `helm install`, and its namespace is that of the current context. `docker build`
is done by what builds images here, which the cluster then has; `export` holds for all commands that follow.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import images
from tests.cluster.provision import Cluster
from tests.e2e import release
from tests.e2e.pools import Errands
from tests.e2e.release import NAMESPACE, Release, Steps
from tests.repo import commands, doc_blocks

pytestmark = pytest.mark.timeout(1_800)

HOWTO = images.ROOT / "docs/howto"
PAGES = ("run-on-kubernetes.md", "change-workflows-on-kubernetes.md", "scale.md", "secure.md")
"""In this order: a page goes on with what those before it have made."""
LAST = "uninstall.md"
_BUILD = re.compile(r"docker build --tag (\S+) \.")


@dataclass(slots=True)
class ClusterShell(doc_blocks.Shell):
    """A terminal of who reads the pages."""

    cluster: Cluster | None = None

    def run(self, command: str) -> tuple[int, str]:
        if self.cluster is not None and (build := _BUILD.fullmatch(command)):
            recipe = self.folder / "Dockerfile"
            self.cluster.load((images.of_user(build[1], recipe, self.folder, images.WORKER),))
            return 0, ""
        if command.startswith("export "):
            return self._export(command)
        return doc_blocks.Shell.run(self, command)

    def _export(self, command: str) -> tuple[int, str]:
        words = [word.partition("=") for word in shlex.split(command)[1:]]
        names = [name for name, sign, _ in words if sign and name.isupper()]
        told = "; ".join(f'printf "%s\\n" "${name}"' for name in names)
        code, printed = doc_blocks.Shell.run(self, f"set -e; {command}; {told}")
        if code == 0:
            self.variables |= dict(zip(names, printed.splitlines(), strict=True))
            printed = ""
        return code, printed


@pytest.fixture(scope="module")
def terminal(installed: Release, tmp_path_factory: pytest.TempPathFactory) -> ClusterShell:
    """Whose current context has the release's namespace, as the pages tell to set it."""
    cluster, folder = installed.cluster, tmp_path_factory.mktemp("shop")
    kubeconfig = tmp_path_factory.mktemp("context") / "kubeconfig"
    kubeconfig.write_bytes(cluster.kubeconfig.read_bytes())
    kubeconfig.chmod(0o600)
    path = f"{commands.BIN}{os.pathsep}{cluster.environment()['PATH']}"
    shell = ClusterShell(folder, {"KUBECONFIG": str(kubeconfig), "PATH": path}, cluster)
    code, printed = shell.run(f"kubectl config set-context --current --namespace {NAMESPACE}")
    assert code == 0, printed
    return shell


@pytest.fixture(scope="module")
def background() -> Iterator[contextlib.ExitStack]:
    """What a page starts runs on for those after it."""
    with contextlib.ExitStack() as found:
        yield found


def problems(name: str, shell: doc_blocks.Shell, background: contextlib.ExitStack) -> Iterator[str]:
    """What does not do as the page says."""
    for block in doc_blocks.blocks((HOWTO / name).read_text("utf-8")):
        if block.language == "console cluster":
            yield from doc_blocks.console(block, shell, background)
        else:
            doc_blocks.write(block, shell.folder)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_as_it_says(
    terminal: ClusterShell, background: contextlib.ExitStack, steps: Steps, name: str
) -> None:
    with steps.step(f"docs/howto/{name}"):
        found = list(problems(name, terminal, background))
    assert not found, "\n".join(found)


def test_what_is_uninstalled_leaves_nothing_stuck(
    errands: Errands, terminal: ClusterShell, background: contextlib.ExitStack, steps: Steps
) -> None:
    """Others of this session find a release again, and what they need in it."""
    try:
        with steps.step(f"docs/howto/{LAST}"):
            found = list(problems(LAST, terminal, background))
    finally:
        with steps.step("installed again"):
            release.uninstall(errands.release.cluster)
            errands.release.install()
            errands.prepare()
    assert not found, "\n".join(found)
