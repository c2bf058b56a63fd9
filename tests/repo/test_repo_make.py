"""The Makefile explains itself, and continuous integration runs exactly what contributors run."""

from __future__ import annotations

import re

from tests.repo import commands, tree

MAKEFILE = (tree.ROOT / "Makefile").read_text(encoding="utf-8")


def test_help_is_the_default_and_lists_every_public_target() -> None:
    printed = commands.check(["make"])
    targets = re.findall(r"^\.PHONY: (\w+)$", MAKEFILE, re.MULTILINE)
    assert targets
    assert re.findall(r"^  make (\w+) ", printed, re.MULTILINE) == targets


def test_every_bench_has_a_target() -> None:
    benches = [path for path in tree.python_files() if tree.name_of(path).startswith("bench/")]
    started = {tree.name_of(path) for path in benches if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}
    assert started
    assert set(re.findall(r"python (bench/\w+\.py)$", MAKEFILE, re.MULTILINE)) == started


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else() -> None:
    script = (tree.ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    lines = [line for line in script if line and not line.startswith("#")]
    required = "export PERDURE_TEST_SERVERS_REQUIRED=1"
    assert lines == ["set -eu", 'cd "$(dirname "$0")/.."', required, "exec make test"]
    assert re.search(r"^make test ", (tree.ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_an_interpreter_that_is_missing_is_said_clearly() -> None:
    code, printed = commands.run(["make", "--always-make", "PYTHON=", ".venv/bin/python"])
    assert code != 0
    assert "Perdure needs Python 3.11 or newer" in printed
