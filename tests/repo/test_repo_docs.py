"""The documentation is true: its blocks run, its links lead somewhere, its make targets exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import test_e2e_docs
from tests.repo import commands, doc_blocks, tree

PAGES = [path for path in tree.markdown_files() if "/data/" not in tree.name_of(path)]
ON_SERVERS = {"docs/howto/run-on-your-servers.md"}
"""Pages whose blocks need a Pulsar and a Cassandra: tests/servers runs them."""
RUNNABLE = [
    path
    for path in PAGES
    if doc_blocks.has_runnable(path.read_text(encoding="utf-8")) and tree.name_of(path) not in ON_SERVERS
]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")


def titles(page: str) -> list[str]:
    return re.findall(r"^# .+$", _FENCED.sub("", page), re.MULTILINE)


def broken_links(page: str, folder: Path) -> Iterator[str]:
    for target in _LINK.findall(_CODE.sub("", _FENCED.sub("", page))):
        if "://" not in target and not (folder / target).exists():
            yield target


@pytest.mark.parametrize("path", PAGES, ids=tree.name_of)
def test_a_page_has_one_title(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert len(titles(page)) == 1
    assert page.startswith("# ")


@pytest.mark.parametrize("path", PAGES, ids=tree.name_of)
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path.read_text(encoding="utf-8"), path.parent)) == []


@pytest.mark.parametrize("path", PAGES, ids=tree.name_of)
def test_make_targets_exist(path: Path) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    targets = set(re.findall(r"^([a-z0-9-]+):", (tree.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("path", RUNNABLE, ids=tree.name_of)
def test_blocks_run_as_the_page_says(path: Path, tmp_path: Path) -> None:
    found = list(doc_blocks.problems(path.read_text(encoding="utf-8"), tmp_path))
    assert not found, "\n".join(found)


def test_blocks_for_a_cluster_are_run_on_one() -> None:
    found = {path.name for path in PAGES if cluster_commands(path.read_text(encoding="utf-8"))}
    assert found == {*test_e2e_docs.PAGES, test_e2e_docs.LAST}


@pytest.mark.parametrize("name", [*test_e2e_docs.PAGES, test_e2e_docs.LAST])
def test_commands_for_a_cluster_can_be_read_by_a_shell(name: str, tmp_path: Path) -> None:
    for command in cluster_commands((tree.ROOT / "docs/howto" / name).read_text(encoding="utf-8")):
        code, printed = commands.run(["sh", "-n", "-c", command], tmp_path)
        assert (code, printed) == (0, ""), command


def cluster_commands(page: str) -> list[str]:
    found = [block for block in doc_blocks.blocks(page) if block.language == "console cluster"]
    return [command for block in found for command, _ in doc_blocks.console_commands(block.text)]


def test_the_readme_and_the_documentation_have_blocks_that_run() -> None:
    names = {tree.name_of(path) for path in RUNNABLE}
    assert "README.md" in names
    assert any(name.startswith("docs/") for name in names)


@pytest.mark.parametrize(
    "page",
    [
        "```python\nraise ValueError('no')\n```\n",
        "```python\nprint(1)\n```\n\n```output\n2\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ echo one\none\n$ false\n```\n",
        "```python\n# app.py\nprint(1)\n```\n\n```console\n$ python app.py\n2\n```\n",
        "```console\n$ touch there; echo begun; exec sleep 60 &\n$ test ! -e there\n```\n",
    ],
)
def test_a_page_that_is_not_true_is_found(page: str, tmp_path: Path) -> None:
    assert len(list(doc_blocks.problems(page, tmp_path))) == 1


@pytest.mark.parametrize(
    "page",
    [
        "```python\nprint('a b c')\n```\n\n```output\na ... c\n```\n",
        "```console\n$ echo one; echo two\none\n...\n$ echo 1\n1\n```\n",
        "```python\n# app.py\nprint(1)\n```\n\n```console\n$ python app.py\n1\n```\n",
        "```sh\nfalse\n```\n",
        "```python program\nraise ValueError('not run')\n```\n",
        "```console\n$ touch there; echo begun; exec sleep 60 &\n$ test -e there\n```\n",
        "```yaml\n# a/b-c.yaml\nkind: A\n```\n\n```console\n$ tail -n 1 a/b-c.yaml\nkind: A\n```\n",
        "```dockerfile\n# Dockerfile\nFROM a\n```\n\n```console\n$ tail -n 1 Dockerfile\nFROM a\n```\n",
        "```console cluster\n$ false\n```\n",
    ],
)
def test_a_page_that_is_true_passes(page: str, tmp_path: Path) -> None:
    assert not list(doc_blocks.problems(page, tmp_path))


def test_titles_and_links_are_checked(tmp_path: Path) -> None:
    assert len(titles("# One\n\n```sh\n# no title\n```\n\n## Two\n\n# Three\n")) == 2
    (tmp_path / "there.md").touch()
    page = "[`a`](there.md#part) [b](missing.md) [c](https://example.org/x) `[d](0,1)`"
    assert list(broken_links(page, tmp_path)) == ["missing.md"]
