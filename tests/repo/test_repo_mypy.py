"""mypy --strict finds nothing in the code, its tests and its examples, and would find something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.repo import commands, tree


@pytest.mark.timeout(commands.SECONDS_MAX)
def test_mypy_is_clean() -> None:
    commands.check(["mypy"])


@pytest.mark.timeout(commands.SECONDS_MAX)
def test_mypy_is_strict(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("def f(x):\n    return x\n", encoding="utf-8")
    code, output = commands.run(
        ["mypy", "--config-file", tree.ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache", sample], tmp_path
    )
    assert code == 1
    assert "no-untyped-def" in output
