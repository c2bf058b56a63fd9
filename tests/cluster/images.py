"""The images of the tests, as OCI archives: each is built when its inputs have changed, and kept.

`python -m tests.cluster.images` builds them all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILDAH = HERE / "buildah.sh"
VERSION = "0.1.0"
SERVICES = ("workflow-engine", "task-engine", "timer", "projector", "api")
PYTHON_BASE = ("python3", "python3-pip", "python3-venv", "ca-certificates")
JAVA_BASE = ("openjdk-17-jre-headless",)
_SECONDS_MAX = 1_800
"""Of one build: debootstrap and a whole environment, on a machine where everybody else works."""
_LEFT_OUT = {"__pycache__", "dist"}


class BuildFailed(Exception):
    """The text has the command and the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    """With its tag."""
    inputs: tuple[Path, ...]
    """Files and folders that it depends on."""
    steps: tuple[tuple[str | Path, ...], ...]
    """Commands that build it, as an image of that name."""
    with_docker: tuple[str | Path, ...]
    """The command that builds it, or fetches what stands for it, where Docker is."""
    base: Image | None = None

    @property
    def key(self) -> str:
        """Tells whether an archive is of these inputs."""
        told = hashlib.sha256(f"{self.name}{self.base.key if self.base else ''}".encode())
        for path in _files(self.inputs):
            told.update(os.path.relpath(path, ROOT).encode())
            told.update(path.read_bytes())
        return told.hexdigest()[:16]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perdure"


def debian(name: str, packages: Iterable[str]) -> Image:
    """A base image of Debian packages."""
    tag = f"localhost/perdure-dev/{name}:{VERSION}"
    return Image(tag, (BUILDAH,), ((BUILDAH, "base", tag, *packages),), ("true",))


def service(name: str, base: Image) -> Image:
    """Of services/Dockerfile: a service, the operator or the worker base."""
    inputs = ("services", "schemas", "sdk", "requirements", "operator", ".dockerignore")
    build = (ROOT / "services/images.sh", name)
    here = ("env", f"BUILD={BUILDAH} build", f"BASE_IMAGE={base.name}", *build)
    return Image(f"localhost/perdure/{name}:{VERSION}", tuple(ROOT / each for each in inputs), (here,), build, base)


def server(name: str, folder: Path, base: Image) -> Image:
    """Of Pulsar or Cassandra, from what its script of tests/servers installs. With Docker, charts name public ones."""
    script, recipe = ROOT / f"tests/servers/{name}.sh", HERE / f"{name}.Dockerfile"
    tag = f"localhost/perdure-dev/{name}:{VERSION}"
    build = (BUILDAH, "build", "-f", recipe, "--build-arg", f"BASE_IMAGE={base.name}", "-t", tag, folder)
    return Image(tag, (script, recipe), ((script, "install"), build), ("true",), base)


def of_user(tag: str, recipe: Path, context: Path, base: Image) -> Image:
    """An image with an app, whose recipe begins from the worker base."""
    build = ("build", "-f", recipe, "-t", tag, context)
    return Image(tag, (recipe, context), ((BUILDAH, *build),), ("docker", *build), base)


PYTHON = debian("python", PYTHON_BASE)
JAVA = debian("java", JAVA_BASE)
WORKER = service("worker", PYTHON)
EXAMPLE = of_user(
    "localhost/image-crop:1", ROOT / "examples/kubernetes/Dockerfile", ROOT / "examples/image_crop", WORKER
)
SERVERS = (
    server("pulsar", cache() / "pulsar/apache-pulsar-4.0.8", JAVA),
    server("cassandra", cache() / "cassandra/5.0.9", JAVA),
)
PERDURE = (*(service(name, PYTHON) for name in (*SERVICES, "operator")), WORKER)
GROUPS = (SERVERS, PERDURE, (EXAMPLE,))
"""What is built and loaded at a time: those of a group share their layers."""


def archive(group: Sequence[Image]) -> Path:
    """These images as one OCI archive, made now if what is kept is of other inputs.

    Raises:
        BuildFailed: its last lines are the error.
    """
    kept = cache() / "kube/images"
    names = "-".join(image.name.rpartition("/")[2].partition(":")[0] for image in group)
    key = hashlib.sha256("".join(image.key for image in group).encode()).hexdigest()[:16]
    path = kept / f"{names}-{key}.oci.tar"
    if path.exists():
        return path
    with _alone(kept):
        if not path.exists():
            for image in group:
                _build(image)
            partial = path.with_suffix(".part")
            _run((BUILDAH, "pack", partial, *(image.name for image in group)))
            for old in kept.glob(f"{names}-{'[0-9a-f]' * 16}.oci.tar"):
                old.unlink()
            partial.rename(path)
    return path


def build_with_docker(image: Image) -> None:
    """Where Docker is: it keeps what it has built.

    Raises:
        BuildFailed: its last lines are the error.
    """
    if image.base is not None:
        build_with_docker(image.base)
    _run(image.with_docker)


def _build(image: Image) -> None:
    if _is_built(image):
        return
    if image.base is not None:
        _build(image.base)
    for step in image.steps:
        _run(step)
    _built(image).parent.mkdir(parents=True, exist_ok=True)
    _built(image).write_text(image.key)


def _is_built(image: Image) -> bool:
    return _built(image).exists() and _built(image).read_text() == image.key


def _built(image: Image) -> Path:
    """Says of which inputs the image in the builder's own storage is."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "perdure/buildah/built" / hashlib.sha256(image.name.encode()).hexdigest()[:16]


def _run(command: tuple[str | Path, ...]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_SECONDS_MAX, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise BuildFailed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{tail}")


def _files(inputs: Iterable[Path]) -> Iterator[Path]:
    for path in inputs:
        if path.is_dir():
            found = (each for each in path.rglob("*") if each.is_file())
            yield from sorted(each for each in found if not _is_left_out(each))
        else:
            yield path


def _is_left_out(path: Path) -> bool:
    return any(part in _LEFT_OUT or part.endswith(".egg-info") for part in path.parts)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for each in GROUPS:
        print(archive(each))
