"""The shape of the repository: flat packages, nothing that shadows the standard library, nothing dead."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.repo import imports, tree

PLACEHOLDERS = [
    "services/api/README.md",
    "services/projector/README.md",
    "services/task-engine/README.md",
    "services/timer/README.md",
    "services/workflow-engine/README.md",
]


def packages_at_top(root: Path) -> list[str]:
    """Folders of the root that Python would take for a package; `operator` would replace the standard library's."""
    return sorted(path.parent.name for path in root.glob("*/__init__.py"))


def test_no_top_level_folder_is_a_package() -> None:
    assert packages_at_top(tree.ROOT) == []


def test_a_top_level_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator" / "__init__.py").touch()
    assert packages_at_top(tmp_path) == ["operator"]


def test_tests_lie_under_tests_and_have_names_of_their_own() -> None:
    tests = [path for path in tree.python_files() if path.name.startswith("test_") or path.name == "conftest.py"]
    assert all(tree.name_of(path).startswith("tests/") for path in tests)
    names = [path.name for path in tests if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("package", tree.PACKAGES)
def test_a_package_is_typed_licensed_and_opens_with_its_charter(package: str) -> None:
    project = tree.PACKAGES[package]
    source = project / "src" / package
    assert (source / "py.typed").exists()
    assert (project / "LICENSE").read_bytes() == (tree.ROOT / "LICENSE").read_bytes()
    assert (source / "__init__.py").read_text(encoding="utf-8").startswith('"""')


@pytest.mark.parametrize("package", tree.PACKAGES)
def test_versions_are_one(package: str) -> None:
    metadata = tomllib.loads((tree.PACKAGES[package] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["version"] == "0.1.0"
    assert metadata["name"] == package.replace("_", "-")
    assert all(
        dependency.endswith("==0.1.0") for dependency in metadata["dependencies"] if dependency.startswith("perdure")
    )


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_one_line_while_nothing_stands_beside_it(placeholder: str) -> None:
    path = tree.ROOT / placeholder
    alone = path.parent == tree.ROOT or sum(tree.ROOT / path.parent in each.parents for each in tree.files()) == 1
    if alone:
        assert path.read_text(encoding="utf-8").count("\n") == 1


def test_no_module_is_dead() -> None:
    dead = imports.dead({tree.name_of(path): path.read_text(encoding="utf-8") for path in tree.python_files()})
    assert dead == []


def test_a_dead_module_is_found() -> None:
    sources = {
        "sdk/src/perdure/__init__.py": "from perdure import used\nfrom .near import x\n",
        "sdk/src/perdure/used.py": "",
        "sdk/src/perdure/near.py": "x = 1\n",
        "sdk/src/perdure/dead.py": "import perdure.dead\n",
        "tests/repo/test_it.py": "from tests.repo import helper\n",
        "tests/repo/helper.py": "",
        "tests/repo/forgotten.py": "",
        "bench/speed.py": 'import machine\nif __name__ == "__main__":\n    machine.run()\n',
        "bench/machine.py": "",
        "bench/old.py": "",
    }
    assert imports.dead(sources) == ["sdk/src/perdure/dead.py", "tests/repo/forgotten.py", "bench/old.py"]
