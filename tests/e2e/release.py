"""Perdure as a user installs it: images, the chart, a worker, and a way in from this machine."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from perdure import Client
from perdure.sync import SyncClient
from tests.cluster import images
from tests.cluster.charts import packed
from tests.cluster.provision import Cluster, Failed

T = TypeVar("T")

LONG = bool(os.environ.get("PERDURE_TEST_LONG"))
"""`make e2e-long`: the sizes and times that are promised, instead of seconds and a few."""
NAME = "perdure"
NAMESPACE = "perdure-e2e"
DEFINITIONS = ("workers.perdure.dev", "workflows.perdure.dev", "connections.perdure.dev")
_RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
_READY_MAX = "10m"
"""Pulsar and Cassandra start within a minute on a quiet machine."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What was done, and how long it took: printed, and kept as build/e2e/report.txt."""

    report: Path
    began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        print(line, flush=True)
        with self.report.open("a") as report:
            report.write(f"{line}\n")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        now = time.monotonic()
        self.say(f"{now - self.began:7.1f} s  {what} ({now - began:.1f} s)")


@dataclass(frozen=True, slots=True)
class Release:
    """An installed chart; everything of it is in one namespace of Kubernetes."""

    cluster: Cluster
    chart: Path
    settings: tuple[str, ...]

    def install(self) -> None:
        """Into a namespace that admits restricted pods only; returns when everything is ready."""
        self.cluster.kubectl("create", "namespace", NAMESPACE)
        self.cluster.kubectl("label", "namespace", NAMESPACE, _RESTRICTED)
        self._helm("install", self.settings)

    def upgrade(self, *settings: str) -> None:
        self._helm("upgrade", (*self.settings, *settings))

    def roll_back(self) -> None:
        """To the revision before this one."""
        where = ("--namespace", NAMESPACE)
        self.cluster.helm("rollback", NAME, *where, "--wait", "--wait-for-jobs", "--timeout", _READY_MAX)

    def _helm(self, verb: str, settings: Sequence[str]) -> None:
        given = [argument for each in settings for argument in ("--set", each)]
        self.cluster.helm(
            verb,
            NAME,
            self.chart,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--wait-for-jobs",
            "--timeout",
            _READY_MAX,
            *given,
        )

    def read_token(self) -> str:
        """That of the API, which the chart made."""
        secret = json.loads(self.kubectl("get", "secret", f"{NAME}-api-token", "-o", "json"))
        return base64.b64decode(secret["data"]["token"]).decode()

    def kubectl(self, *arguments: str | Path, input: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, *arguments, input=input)

    def apply(self, *objects: dict[str, Any], verb: str = "apply") -> None:
        """`create` is two requests less for each object."""
        self.kubectl(verb, "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def find(self, kinds: str, labels: str = "") -> list[dict[str, Any]]:
        """`kinds`: with commas between them."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-l", labels, "-o", "json"))["items"]
        return found

    def pods(self, labels: str) -> list[dict[str, Any]]:
        """Those that are not on their way out."""
        return [pod for pod in self.find("pods", labels) if "deletionTimestamp" not in pod["metadata"]]

    def answers(self) -> bool:
        """Whether the API server does."""
        try:
            self.kubectl("get", "pods")
        except Failed:
            return False
        return True

    def kill(self, pod: dict[str, Any]) -> None:
        """`kill -9` of all processes in its first container."""
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        self.cluster.kill(container, node=pod["spec"]["nodeName"])

    @contextmanager
    def client(self) -> Iterator[SyncClient]:
        """Of the API, through a port-forward."""
        with (
            self.forwarded(f"{NAME}-api", 8420) as url,
            Client.connect(url, token=self.read_token()).sync as client,
        ):
            yield client

    def perdure(self, url: str, *arguments: str) -> str:
        """A command of this machine, against the API at the URL."""
        environment = {**os.environ, "PERDURE_URL": url, "PERDURE_TOKEN": self.read_token()}
        done = subprocess.run(
            [sys.executable, "-m", "perdure.cli", *arguments], env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"perdure {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[str]:
        """The URL on this machine that leads to a service's port, as a user has it by `kubectl port-forward`."""
        command = ["kubectl", "--namespace", NAMESPACE, "port-forward", f"service/{service}", f":{port}"]
        with subprocess.Popen(command, env=self.cluster.environment(), stdout=subprocess.PIPE, text=True) as forwarding:
            assert forwarding.stdout is not None
            try:
                found = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
                assert found, "kubectl port-forward said no port"
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                forwarding.terminate()


def until(what: str, look: Callable[[], T | None], seconds: float = 120) -> T:
    """The first answer that is one."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return found


def prepared(cluster: Cluster, folder: Path, *settings: str) -> Release:
    """What can be installed: on servers of its own, with these settings beside."""
    chart = packed(cluster.bin / "helm", folder)
    return Release(cluster, chart, ("dev.enabled=true", *_images_of_servers(cluster), *settings))


def uninstall(cluster: Cluster) -> None:
    """And the definitions, which the chart keeps: a release of another name would not take them over."""
    cluster.helm("uninstall", NAME, "--namespace", NAMESPACE, "--wait", "--ignore-not-found")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    cluster.kubectl("delete", "customresourcedefinitions", "--ignore-not-found", *DEFINITIONS)


def _images_of_servers(cluster: Cluster) -> list[str]:
    """Where nothing can be fetched, those that were made here stand for the public ones."""
    if not cluster.own:
        return []
    return [f"dev.{name}.image=localhost/perdure-dev/{name}:{images.VERSION}" for name in ("pulsar", "cassandra")]
