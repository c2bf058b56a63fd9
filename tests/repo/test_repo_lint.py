"""ruff and import-linter are clean, and both catch what they are there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.repo import commands, tree


def test_ruff_check_is_clean() -> None:
    commands.check(["ruff", "check", "--no-cache", "."])


def test_ruff_format_is_clean() -> None:
    commands.check(["ruff", "format", "--no-cache", "--check", "."])


BRANCHES = "".join(f"    if x == {n}:\n        return {n}\n" for n in range(11))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("C901", f"def f(x: int) -> int:\n{BRANCHES}    return x\n"),
        ("PLR0917", "def f(a: int, b: int, c: int, d: int, e: int) -> int:\n    return a + b + c + d + e\n"),
        ("F401", "import os\n"),
        ("E501", f"x = '{'x' * 120}'\n"),
        ("FIX002", "# TO" + "DO: later\n"),
        ("T201", "print(1)\n"),
    ],
)
def test_ruff_catches(rule: str, source: str, tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(source, encoding="utf-8")
    code, output = commands.run(["ruff", "check", "--no-cache", "--config", tree.ROOT / "pyproject.toml", sample])
    assert code == 1
    assert rule in output


def test_a_method_has_four_positional_parameters_beside_self(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "class C:\n    def f(self, a: int, b: int, c: int, d: int, *, e: int) -> int:\n        return a + b + c + d\n",
        encoding="utf-8",
    )
    commands.check(["ruff", "check", "--no-cache", "--config", tree.ROOT / "pyproject.toml", sample])


def test_layers_hold() -> None:
    commands.check(["lint-imports", "--no-cache"])


@pytest.mark.parametrize(
    ("module", "source", "contract"),
    [
        ("perdure_core/wrong.py", "import perdure_runtime\n", "services over sdk over runtime over core over schemas"),
        ("perdure_core/wrong.py", "import logging\n", "The core has no input"),
        (
            "perdure_runtime/adapters/memory/wrong.py",
            "from perdure_runtime.adapters import sqlite\n",
            "Adapters do not know each other",
        ),
        ("perdure_operator/wrong.py", "import perdure\n", "The operator knows the wire contract's ids"),
        ("perdure_runtime/wrong.py", "import kopf\n", "Kubernetes is the operator's alone"),
        ("perdure_operator/scaling.py", "import time\n", "What the operator decides is free of input"),
    ],
)
def test_import_linter_catches(module: str, source: str, contract: str, tmp_path: Path) -> None:
    """On a small project with our contracts."""
    for package in tree.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for adapter in ["", "cassandra", "memory", "pulsar", "socket", "sqlite"]:
        folder = tmp_path / "perdure_runtime/adapters" / adapter
        folder.mkdir()
        (folder / "__init__.py").touch()
    for module_name in (
        "builds",
        "desired",
        "differences",
        "facts",
        "keda",
        "resources",
        "rollout",
        "scaling",
        "status",
    ):
        (tmp_path / f"perdure_operator/{module_name}.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        (tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    arguments = ["lint-imports", "--no-cache"]
    commands.check(arguments, tmp_path, PYTHONPATH=str(tmp_path))
    (tmp_path / module).write_text(source, encoding="utf-8")
    code, output = commands.run(arguments, tmp_path, PYTHONPATH=str(tmp_path))
    assert code == 1
    assert any(contract in line and "BROKEN" in line for line in output.splitlines()), output
