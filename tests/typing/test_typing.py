"""What users write has exact types under mypy --strict and pyright, and what is wrong is reported where it is.

Lines of `cases/` marked `# E` must be reported by each checker, and no other line may be.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repo import commands

pytestmark = pytest.mark.timeout(commands.SECONDS_MAX)
ROOT = Path(__file__).resolve().parents[2]
CASES = sorted((ROOT / "tests" / "typing" / "cases").glob("*.py"))
SOURCES = ("schemas/src", "services/core/src", "services/runtime/src", "sdk/src")


def expected(case: Path) -> set[int]:
    return {number for number, line in enumerate(case.read_text().splitlines(), 1) if line.endswith("# E")}


def reported_by_mypy(cases: list[Path], tmp_path: Path) -> dict[str, set[int]]:
    config = tmp_path / "mypy.ini"
    path = ":".join(str(ROOT / source) for source in SOURCES)
    config.write_text(
        f"[mypy]\nstrict = True\npython_version = 3.11\nmypy_path = {path}\nnamespace_packages = True\n"
        "explicit_package_bases = True\nfollow_imports = silent\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, "--no-pretty", "--no-error-summary", *map(str, cases)],
        capture_output=True, text=True, cwd=tmp_path, timeout=commands.SECONDS_MAX, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    lines: dict[str, set[int]] = {case.name: set() for case in cases}
    for name, line in re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error:", done.stdout, re.MULTILINE):
        lines[name].add(int(line))
    return lines


def reported_by_pyright(cases: list[Path], tmp_path: Path) -> dict[str, set[int]]:
    config = tmp_path / "pyrightconfig.json"
    settings = {
        "include": [str(case) for case in cases],
        "extraPaths": [str(ROOT / source) for source in SOURCES],
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
    }
    config.write_text(json.dumps(settings))
    command = [str(Path(sys.executable).parent / "basedpyright"), "--project", str(config), "--outputjson"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable],
        capture_output=True, text=True, cwd=tmp_path, timeout=commands.SECONDS_MAX, check=False,
    )  # fmt: skip
    lines: dict[str, set[int]] = {case.name: set() for case in cases}
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        if found["severity"] == "error":
            lines[Path(found["file"]).name].add(found["range"]["start"]["line"] + 1)
    return lines


@pytest.mark.parametrize("checker", [reported_by_mypy, reported_by_pyright], ids=["mypy", "pyright"])
def test_exact_types_and_errors_at_the_marked_lines(
    checker: Callable[[list[Path], Path], dict[str, set[int]]], tmp_path: Path
) -> None:
    reported = checker(CASES, tmp_path)
    for case in CASES:
        wanted = expected(case)
        assert wanted, f"{case.name} has no negative case"
        assert reported[case.name] == wanted, (
            f"{case.name}: not reported {sorted(wanted - reported[case.name])}, "
            f"reported without mark {sorted(reported[case.name] - wanted)}"
        )
