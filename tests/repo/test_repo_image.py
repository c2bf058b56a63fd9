"""The recipe of the images holds what the packages are."""

from __future__ import annotations

import re
import tomllib

import yaml

from tests.cluster.images import VERSION
from tests.repo import doc_blocks, tree

RECIPE = (tree.ROOT / "services/Dockerfile").read_text("utf-8")
INSTRUCTIONS = re.sub(r"\\\n\s*", "", RECIPE).splitlines()


def of(word: str) -> list[str]:
    """The arguments of each instruction of this kind."""
    return [line.removeprefix(f"{word} ") for line in INSTRUCTIONS if line.startswith(f"{word} ")]


def services() -> set[str]:
    return {path.parent.name for path in tree.ROOT.glob("services/*/pyproject.toml")} - {"core", "runtime"}


def test_every_package_is_in_the_image() -> None:
    installed = {found for line in of("RUN") if "pip wheel" in line for found in re.findall(r"\./(\S+)", line)}
    packages = {str(path.parent.relative_to(tree.ROOT)) for path in tree.ROOT.glob("*/pyproject.toml")}
    packages |= {str(path.parent.relative_to(tree.ROOT)) for path in tree.ROOT.glob("services/*/pyproject.toml")}
    assert installed == packages


def test_what_is_copied_exists() -> None:
    sources = [source for line in of("COPY") if not line.startswith("--from") for source in line.split()[:-1]]
    assert sources
    assert [source for source in sources if not (tree.ROOT / source).exists()] == []


def test_every_service_has_the_command_that_the_image_runs() -> None:
    stages = dict(re.findall(r"^FROM base AS (\S+)\nENTRYPOINT \[\"(\S+)\"\]$", RECIPE, re.MULTILINE))
    assert stages == {service: f"perdure-{service}" for service in services()}
    for service in services():
        project = tomllib.loads((tree.ROOT / f"services/{service}/pyproject.toml").read_text("utf-8"))["project"]
        assert list(project["scripts"]) == [f"perdure-{service}"]


def test_images_run_as_nobody_on_a_base_that_can_be_chosen() -> None:
    assert of("ARG")[0].startswith("BASE_IMAGE=")
    assert {line.split()[0] for line in of("FROM")} == {"${BASE_IMAGE}", "base", "wheels"}
    stages = re.split(r"^FROM ", "\n".join(INSTRUCTIONS), flags=re.MULTILINE)
    ours = [stage for stage in stages if re.match(r"\S+ AS (base|operator)\n", stage)]
    assert ["\nUSER 65532:65532\n" in stage and "\nRUN " not in stage for stage in ours] == [True, True]


def test_the_image_of_the_page_is_six_lines() -> None:
    page = (tree.ROOT / "docs/howto/run-on-kubernetes.md").read_text("utf-8")
    (recipe,) = [block.text for block in doc_blocks.blocks(page) if block.language == "dockerfile"]
    lines = [line for line in recipe.splitlines() if not line.startswith("#")]
    assert lines[0] == f"FROM localhost/perdure/worker:{VERSION}"
    assert len(lines) <= 6


def test_the_image_of_a_user_is_six_lines_and_runs_as_nobody() -> None:
    lines = (tree.ROOT / "examples/kubernetes/Dockerfile").read_text("utf-8").splitlines()
    assert len(lines) <= 6
    assert lines[0] == f"FROM localhost/perdure/worker:{VERSION}"
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 65532"


def test_every_image_is_built_and_deployed_in_the_inner_loop() -> None:
    names = {*services(), "operator", "worker"}
    script = (tree.ROOT / "services/images.sh").read_text("utf-8")
    (built,) = re.findall(r"set -- (.*)$", script, re.MULTILINE)
    assert set(built.split()) == names
    skaffold = yaml.safe_load((tree.ROOT / "skaffold.yaml").read_text("utf-8"))
    artifacts = {each["image"]: each["docker"] for each in skaffold["build"]["artifacts"]}
    assert set(artifacts) == {f"localhost/perdure/{name}" for name in names}
    for image, docker in artifacts.items():
        name = image.rpartition("/")[2]
        assert docker == {"dockerfile": "services/Dockerfile", "target": name}
    (release,) = skaffold["deploy"]["helm"]["releases"]
    assert (tree.ROOT / release["chartPath"] / "Chart.yaml").exists()
    assert all((tree.ROOT / path).exists() for path in release["valuesFiles"])
    assert release["setValueTemplates"] == {
        f"image.overrides.{name}": f"{{{{.IMAGE_FULLY_QUALIFIED_localhost_perdure_{name.replace('-', '_')}}}}}"
        for name in names
    }
