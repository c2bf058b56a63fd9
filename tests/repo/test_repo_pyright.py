"""pyright (as basedpyright, which needs no download at its first run) finds nothing, and would find something."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.repo import commands, tree


@pytest.mark.timeout(commands.SECONDS_MAX)
def test_pyright_is_clean() -> None:
    commands.check(["basedpyright"])


@pytest.mark.timeout(commands.SECONDS_MAX)
def test_pyright_finds_a_wrong_type(tmp_path: Path) -> None:
    rules = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["basedpyright"]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**rules, "include": ["."]}), encoding="utf-8")
    (tmp_path / "sample.py").write_text("x: int = 'one'\n", encoding="utf-8")
    code, output = commands.run(["basedpyright", "--project", tmp_path])
    assert code == 1
    assert "reportAssignmentType" in output
