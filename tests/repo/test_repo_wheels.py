"""All wheels install into an empty environment, and the README's example runs on them alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.repo import commands, doc_blocks, tree

RUN = tree.ROOT / "requirements/run.txt"
PLAIN_MAX = 20
"""Packages of a plain install, ours and pip's own among them: each one more is a decision."""
pytestmark = pytest.mark.timeout(commands.SECONDS_MAX)


@pytest.fixture(autouse=True)
def no_checkout_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell of somebody who has none."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds, built elsewhere."""
    folder = tmp_path_factory.mktemp("dist")
    for package, project in tree.PACKAGES.items():
        commands.check([sys.executable, "-m", "hatchling", "build", "-d", folder / _folder(package)], project)
    return folder


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment made by `pip install dist/*.whl`, with dependencies as they are locked."""
    folder = tmp_path_factory.mktemp("environment")
    commands.check([sys.executable, "-m", "venv", folder / "venv"])
    python = folder / "venv/bin/python"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile"]
    constraints = folder / "constraints.txt"  # without the hashes, which our own wheels have none of
    constraints.write_text(re.sub(r"(?m)^ +--hash=.*\n|\\$", "", RUN.read_text(encoding="utf-8")), encoding="utf-8")
    wanted: list[str | Path] = ["--constraint", constraints, *sorted(dist.glob("*.whl"))]
    code, _ = commands.run([*pip, "--no-index", "--find-links", _kept_wheels(), *wanted])
    if code != 0:  # the environment of this test run was not made by `make setup`, which keeps the wheels
        commands.check([*pip, *wanted])
    return python


def test_each_package_has_a_wheel_and_a_source_archive(dist: Path) -> None:
    expected = {
        f"{_folder(package)}/{package}-0.1.0{suffix}".removeprefix("./")
        for package in tree.PACKAGES
        for suffix in ["-py3-none-any.whl", ".tar.gz"]
    }
    built = {path.relative_to(dist).as_posix() for path in dist.rglob("*") if path.is_file()}
    assert {name for name in built if not name.endswith(".gitignore")} == expected


def test_make_dist_puts_them_where_these_tests_do() -> None:
    makefile = (tree.ROOT / "Makefile").read_text(encoding="utf-8")
    for name, services in (("SDK", False), ("SERVICES", True)):
        listed = re.findall(rf"^{name} := (.*)$", makefile, re.MULTILINE)[0].split()
        ours = [project for package, project in tree.PACKAGES.items() if (package not in tree.SDK) == services]
        assert [tree.ROOT / project for project in listed] == ours


def test_a_plain_install_is_small_and_has_no_driver(python: Path) -> None:
    script = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    installed = set(commands.check([python, "-c", script]).split())
    assert {"perdure", "perdure-schemas", "perdure-core", "perdure-runtime"} <= installed
    assert not installed & {"pulsar-client", "cassandra-driver", "fastapi", "uvicorn", "aiohttp", "pydantic-settings"}
    assert len(installed) <= PLAIN_MAX, sorted(installed)


WITHOUT_AN_EXTRA = {
    "cluster": ["perdure worker hello.py", "perdure admin init", "perdure admin dlq list"],
    "api": ["PERDURE_URL=http://127.0.0.1:9 perdure list", "perdure dev hello.py --port 0"],
    "payloads": ["PERDURE_PAYLOAD_KEYS_FILE=keys.json perdure run hello.py hello"],
}


@pytest.mark.parametrize(
    ("extra", "command"), [(extra, each) for extra, several in WITHOUT_AN_EXTRA.items() for each in several]
)
def test_what_needs_an_extra_names_it_in_one_line(extra: str, command: str, python: Path, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("from perdure import workflow\n@workflow\nasync def hello() -> None: ...\n")
    (tmp_path / "keys.json").write_text('{"current": "", "keys": {}}')
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    code, printed = commands.run(["sh", "-c", command], tmp_path, PATH=path)
    assert code == 2, printed
    assert re.fullmatch(rf"error: .* needs the package \w+: pip install 'perdure\[{extra}\]'", _last_line(printed))
    assert "Traceback" not in printed


def test_a_dev_without_the_api_says_so_in_one_line(python: Path, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("from perdure import workflow\n@workflow\nasync def hello() -> None: ...\n")
    dev = subprocess.Popen(
        [python.parent / "perdure", "dev", "hello.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert dev.stdout is not None
    try:
        told = next(line for line in dev.stdout if "no-api" in line)
        assert json.loads(told)["reason"].endswith("pip install 'perdure[api]'")
    finally:
        dev.terminate()
        dev.communicate(timeout=commands.SECONDS_MAX)
    assert dev.returncode == 0


@pytest.mark.parametrize("package", tree.PACKAGES)
def test_a_wheel_holds_the_whole_package(package: str, dist: Path) -> None:
    with zipfile.ZipFile(dist / _folder(package) / f"{package}-0.1.0-py3-none-any.whl") as wheel:
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
    with tarfile.open(dist / _folder(package) / f"{package}-0.1.0.tar.gz") as archive:
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


@pytest.mark.parametrize("name", ["run", "operator"])
def test_dependencies_are_locked_as_declared(name: str) -> None:
    """run.in is what the packages declare, with the extra of the examples; the operator has a list of its own."""
    declared: set[str] = set()
    for package, project in tree.PACKAGES.items():
        if (package == "perdure_operator") != (name == "operator"):
            continue
        metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for group in [metadata["dependencies"], *metadata.get("optional-dependencies", {}).values()]:
            declared |= {name for name in group if not name.startswith("perdure")}
    lines = (tree.ROOT / f"requirements/{name}.in").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith(("#", "-c "))} == declared


@pytest.mark.parametrize("name", ["run", "operator", "build", "dev"])
def test_locked_lists_pin_every_package_by_hash(name: str) -> None:
    text = (tree.ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    requirements = text.splitlines()
    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)


def _folder(package: str) -> str:
    """Below dist/: `pip install dist/*.whl` must not bring the services, which need drivers of servers."""
    return "." if package in tree.SDK else "services"


def _last_line(printed: str) -> str:
    return printed.splitlines()[-1]


def _kept_wheels() -> Path:
    """As in the Makefile."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perdure/wheels"
