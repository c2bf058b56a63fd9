"""What the pages tell Helm to install or upgrade is rendered: values that the chart does not know are refused."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.charts import rendered
from tests.charts.rendered import Chart
from tests.cluster.provision import Failed, run
from tests.repo import doc_blocks, tree

pytestmark = pytest.mark.timeout(600)  # Helm may have to be built
_RENDERED_AS_WELL = {"--set", "--values"}
"""Options of an install that say what is rendered; each has a value."""


def helm_commands(page: str) -> Iterator[list[str]]:
    """Those that install or upgrade one of the charts."""
    for block in doc_blocks.blocks(page):
        for line in block.text.splitlines() if block.language == "sh" else ():
            words = shlex.split(line, comments=True)
            if words[:2] in (["helm", "install"], ["helm", "upgrade"]):
                yield words


def render(chart: Chart, command: Sequence[str], folder: Path) -> str:
    """What the command would install; one that keeps earlier values was first told `dev.enabled=true`."""
    (place,) = (word for word in command if word.startswith("charts/"))
    given = [
        word for option, value in pairwise(command) if option in _RENDERED_AS_WELL
        for word in (option, str(folder / value) if option == "--values" else value)
    ]  # fmt: skip
    if "--reuse-values" in command:
        given = ["--set", "dev.enabled=true", *given]
    chart_folder = chart.folder.parent / Path(place).name
    return run(
        chart.tools / "helm", "template", rendered.RELEASE, chart_folder, "--kube-version", rendered.KUBERNETES, *given
    )


NAMED = [path for path in tree.markdown_files() if list(helm_commands(path.read_text("utf-8")))]


@pytest.mark.parametrize("path", NAMED, ids=tree.name_of)
def test_what_a_page_tells_helm_is_rendered(chart: Chart, path: Path, tmp_path: Path) -> None:
    page = path.read_text("utf-8")
    for block in doc_blocks.blocks(page):
        doc_blocks.write(block, tmp_path)
    for command in helm_commands(page):
        assert "kind: " in render(chart, command, tmp_path), command


def test_pages_that_tell_helm_something_are_found() -> None:
    assert {"docs/howto/run-on-kubernetes.md", "docs/howto/secure.md"} <= {tree.name_of(path) for path in NAMED}


def test_a_value_that_the_chart_does_not_know_is_found(chart: Chart, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("dev: {enabled: true}\npulsars: {}\n")
    command = shlex.split("helm install perdure charts/perdure --values values.yaml")
    with pytest.raises(Failed, match="pulsars"):
        render(chart, command, tmp_path)
