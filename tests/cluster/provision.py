"""A real Kubernetes cluster for the tests.

With KUBECONFIG, the one it names, if that is kind's or k3d's: images are built by Docker and loaded into it. Otherwise
this machine's own (kube.sh), which is started by the first session that needs it, and ended by the last.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster import images

KUBE = Path(__file__).parent / "kube.sh"
_MADE_BY = {"kind-": ("kind", "load", "docker-image", "--name"), "k3d-": ("k3d", "image", "import", "--cluster")}
"""Prefixes of contexts whose clusters take images of this machine's Docker: what else a kubeconfig names may be
somebody's production."""
_INSTALL_SECONDS_MAX = 2_400
"""Kubernetes is built from source once, where no binaries are at hand."""
_SECONDS_MAX = 600
"""Of one command: `helm install --wait` of everything, on a machine where everybody else works."""


class NoCluster(Exception):
    """Neither a cluster nor what starts one."""


class NoTools(Exception):
    """Neither Helm nor what builds it."""


class Failed(Exception):
    """A command ended with an error; the text has both."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Commands against a cluster."""

    kubeconfig: Path
    bin: Path
    """Where helm and kubectl are, if not on the PATH."""
    context: str = ""
    """Of kind or k3d; empty: this machine's own cluster."""

    @property
    def own(self) -> bool:
        return not self.context

    def environment(self) -> dict[str, str]:
        places = (str(self.bin), os.environ["PATH"])
        path = os.pathsep.join(places if self.own else reversed(places))
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, *command: str | Path, input: str | None = None) -> str:
        """Its standard output.

        Raises:
            Failed: it ended with an error.
        """
        return run(*command, environment=self.environment(), input=input)

    def kubectl(self, *arguments: str | Path, input: str | None = None) -> str:
        return self.run("kubectl", *arguments, input=input)

    def helm(self, *arguments: str | Path) -> str:
        return self.run("helm", *arguments)

    def kill(self, container: str, *, node: str) -> None:
        """`kill -9` of a container's processes: they bear its id in the name of their cgroup."""
        script = f"kill -9 $(grep -l {container} /proc/[0-9]*/cgroup | cut -d/ -f3)"
        self.run(*([] if self.own else ["docker", "exec", node]), "sh", "-c", script)

    def kill_component(self, component: str, *, node: str) -> None:
        """`kill -9` of kubelet or kube-apiserver; returns when it was told to start again."""
        if self.own:
            pid, *_ = (_state() / "run" / f"{component}.pid").read_text().split()
            os.kill(int(pid), signal.SIGKILL)
            _up()
        else:
            self.run("docker", "exec", node, "pkill", "-9", "-x", component)

    def load(self, group: Sequence[images.Image]) -> None:
        """Build the images if they have to be, and have the cluster know them."""
        if self.own:
            _load_own(images.archive(group))
        else:
            for image in group:
                _load_given(image, self.context)


def run(*command: str | Path, environment: dict[str, str] | None = None, input: str | None = None) -> str:
    done = subprocess.run(
        command, env=environment, input=input, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
    )
    if done.returncode:
        told = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{told}")
    return done.stdout


@contextmanager
def cluster() -> Iterator[Cluster]:
    """The cluster, for as long as somebody uses it.

    Raises:
        NoCluster: with the one line that says what is missing.
        Failed: it could not be started.
    """
    if os.environ.get("KUBECONFIG"):
        yield _given()
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoCluster(
            "no cluster: tests on Kubernetes need KUBECONFIG of a kind or k3d cluster, and Docker; or root on Debian"
        )
    with _used():
        yield Cluster(_state() / "conf/admin.kubeconfig", tools())


def tools() -> Path:
    """Where helm, helm-unittest and kubeconform are; built or unpacked now if they were not.

    Raises:
        NoTools: with the one line that says what is missing.
    """
    bin = images.cache() / "kube/bin"
    done = subprocess.run([KUBE, "tools"], capture_output=True, text=True, timeout=_INSTALL_SECONDS_MAX, check=False)
    if done.returncode:
        raise NoTools(
            f"tests of charts need helm, helm-unittest and kubeconform, which Go builds: {_last(done.stderr)}"
        )
    return bin


def _given() -> Cluster:
    missing = [tool for tool in ("kubectl", "docker") if shutil.which(tool) is None]
    if missing:
        raise NoCluster(f"{', '.join(missing)} not found: with KUBECONFIG, tests on Kubernetes need them")
    context = run("kubectl", "config", "current-context").strip()
    maker = next((prefix for prefix in _MADE_BY if context.startswith(prefix)), None)
    if maker is None or shutil.which(_MADE_BY[maker][0]) is None:
        raise NoCluster(
            f"context {context!r} is not used: tests load images with kind or k3d into clusters that those made "
            "(contexts kind-… and k3d-…)"
        )
    return Cluster(Path(os.environ["KUBECONFIG"]), tools(), context)


def _load_given(image: images.Image, context: str) -> None:
    prefix = next(prefix for prefix in _MADE_BY if context.startswith(prefix))
    images.build_with_docker(image)
    run(*_MADE_BY[prefix], context.removeprefix(prefix), image.name)


def _load_own(archive: Path) -> None:
    loaded = _state() / "loaded" / archive.name.rsplit("-", 1)[0]
    if loaded.exists() and loaded.read_text() == archive.name:
        return
    run(KUBE, "load-image", archive)
    loaded.parent.mkdir(parents=True, exist_ok=True)
    loaded.write_text(archive.name)


def _state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "perdure/kube"


@contextmanager
def _used() -> Iterator[None]:
    """Whoever uses the cluster shares a lock; who gets it alone in the end is the last, and ends what tests began."""
    place = _state().parent
    place.mkdir(parents=True, exist_ok=True)
    begun = place / "kube.begun-by-tests"
    with (place / "kube.users").open("w") as users:
        with _alone(place / "kube.lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if subprocess.run([KUBE, "status"], capture_output=True, check=False).returncode:
                begun.touch()
            _up()
        try:
            yield
        finally:
            with _alone(place / "kube.lock"):
                if begun.exists() and _is_last(users):
                    subprocess.run([KUBE, "down"], capture_output=True, timeout=_SECONDS_MAX, check=True)
                    begun.unlink()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _up() -> None:
    done = subprocess.run(
        [KUBE, "up"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=_INSTALL_SECONDS_MAX,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"kube.sh up ended with {done.returncode}:\n{done.stderr}")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"
