"""A page that names a test as its proof names one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repo import tree

PAGES = [page for page in sorted((tree.ROOT / "docs").rglob("*.md")) if "`test_" in page.read_text(encoding="utf-8")]


def defined() -> set[str]:
    files = (tree.ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))}


def missing(page: str) -> set[str]:
    """Names of tests in code marks that no file defines."""
    return set(re.findall(r"`(test_\w+)`", page)) - defined()


@pytest.mark.parametrize("page", PAGES, ids=tree.name_of)
def test_named_tests_exist(page: Path) -> None:
    assert not missing(page.read_text(encoding="utf-8"))


def test_a_name_of_no_test_is_found() -> None:
    assert missing("`test_named_tests_exist` and `test_that_nobody_" + "wrote`") == {"test_that_nobody_" + "wrote"}
