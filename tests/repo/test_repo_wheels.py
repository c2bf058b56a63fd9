"""The four wheels install into an empty environment, and the README's example runs on them alone."""

from __future__ import annotations

import os
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.repo import commands, doc_blocks, tree

RUN = tree.ROOT / "requirements/run.txt"
pytestmark = pytest.mark.timeout(commands.SECONDS_MAX)


@pytest.fixture(autouse=True)
def no_checkout_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell of somebody who has none."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds, built elsewhere."""
    folder = tmp_path_factory.mktemp("dist")
    for project in tree.PACKAGES.values():
        commands.check([sys.executable, "-m", "hatchling", "build", "-d", folder], project)
    return folder


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheels and their locked dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    commands.check([sys.executable, "-m", "venv", environment])
    python = environment / "bin/python"
    locked: list[str | Path] = ["--no-compile", "--require-hashes", "-r", RUN]
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    code, _ = commands.run([*pip, "--no-index", "--find-links", _kept_wheels(), *locked])
    if code != 0:  # the environment of this test run was not made by `make setup`, which keeps the wheels
        commands.check([*pip, *locked])
    commands.check([*pip, "--no-index", "--no-deps", *sorted(dist.glob("*.whl"))])
    return python


def test_each_package_has_a_wheel_and_a_source_archive(dist: Path) -> None:
    expected = {f"{package}-0.1.0{suffix}" for package in tree.PACKAGES for suffix in ["-py3-none-any.whl", ".tar.gz"]}
    assert {path.name for path in dist.iterdir() if path.name != ".gitignore"} == expected


@pytest.mark.parametrize("package", tree.PACKAGES)
def test_a_wheel_holds_the_whole_package(package: str, dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{package}-0.1.0-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    source = tree.PACKAGES[package] / "src"
    modules = {path.relative_to(source).as_posix() for path in tree.files() if source in path.parents}
    assert modules <= names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any(name.startswith("test") for name in names)
    if package == "perdure_schemas":
        avro = tree.ROOT / "schemas/avro"
        schemas = {f"perdure_schemas/avro/{path.relative_to(avro).as_posix()}" for path in avro.rglob("*.avsc")}
        assert schemas
        assert schemas <= names


@pytest.mark.parametrize("package", tree.PACKAGES)
def test_a_source_archive_stands_alone(package: str, dist: Path) -> None:
    with tarfile.open(dist / f"{package}-0.1.0.tar.gz") as archive:
        members = archive.getmembers()
    assert all(member.isreg() for member in members)
    assert f"{package}-0.1.0/LICENSE" in {member.name for member in members}


def test_the_readme_is_true_on_the_wheels_alone(python: Path, tmp_path: Path) -> None:
    page = (tree.ROOT / "README.md").read_text(encoding="utf-8")
    assert list(doc_blocks.problems(page, tmp_path, python=python)) == []


def test_the_command_is_installed(python: Path) -> None:
    assert "start" in commands.check([python.parent / "perdure", "--help"])


def test_nothing_of_the_checkout_is_used(python: Path, tmp_path: Path) -> None:
    script = "import perdure, perdure_runtime, perdure_core, perdure_schemas as s; print(perdure.__file__, s.__file__)"
    printed = commands.check([python, "-c", script], tmp_path)
    assert str(tree.ROOT) not in printed
    assert str(python.parents[1]) in printed


def test_dependencies_are_locked_as_declared() -> None:
    """requirements/run.in is what the packages declare, with the examples' extra."""
    declared: set[str] = set()
    for project in tree.PACKAGES.values():
        metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for group in [metadata["dependencies"], *metadata.get("optional-dependencies", {}).values()]:
            declared |= {name for name in group if not name.startswith("perdure")}
    lines = (tree.ROOT / "requirements/run.in").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == declared


@pytest.mark.parametrize("name", ["run", "build", "dev"])
def test_locked_lists_pin_every_package_by_hash(name: str) -> None:
    text = (tree.ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    requirements = text.splitlines()
    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)


def _kept_wheels() -> Path:
    """As in the Makefile."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perdure/wheels"
