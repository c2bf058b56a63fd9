"""The recipe of the images holds what the packages are."""

from __future__ import annotations

import re
import tomllib

from tests.repo import tree

RECIPE = (tree.ROOT / "services/Dockerfile").read_text("utf-8")
INSTRUCTIONS = re.sub(r"\\\n\s*", "", RECIPE).splitlines()


def of(word: str) -> list[str]:
    """The arguments of each instruction of this kind."""
    return [line.removeprefix(f"{word} ") for line in INSTRUCTIONS if line.startswith(f"{word} ")]


def services() -> set[str]:
    return {path.parent.name for path in tree.ROOT.glob("services/*/pyproject.toml")} - {"core", "runtime"}


def test_every_package_is_in_the_image() -> None:
    (install,) = [line for line in of("RUN") if "--no-deps" in line]
    installed = set(re.findall(r"\./(\S+)", install))
    packages = {str(path.parent.relative_to(tree.ROOT)) for path in tree.ROOT.glob("*/pyproject.toml")}
    packages |= {str(path.parent.relative_to(tree.ROOT)) for path in tree.ROOT.glob("services/*/pyproject.toml")}
    assert installed == packages


def test_what_is_copied_exists() -> None:
    sources = [source for line in of("COPY") if not line.startswith("--from") for source in line.split()[:-1]]
    assert sources
    assert [source for source in sources if not (tree.ROOT / source).exists()] == []


def test_every_service_has_the_command_that_the_image_runs() -> None:
    assert 'ENTRYPOINT ["/bin/sh", "-c", "exec perdure-${SERVICE:?}"]' in INSTRUCTIONS
    for service in services():
        project = tomllib.loads((tree.ROOT / f"services/{service}/pyproject.toml").read_text("utf-8"))["project"]
        assert list(project["scripts"]) == [f"perdure-{service}"]


def test_images_run_as_nobody_on_a_base_that_can_be_chosen() -> None:
    assert of("ARG")[0].startswith("BASE_IMAGE=")
    assert {line.split()[0] for line in of("FROM")} == {"${BASE_IMAGE}", "base"}
    assert [user.partition(":")[0].isdigit() and user != "0:0" for user in of("USER")] == [True]
