"""`Worker` and `Workflow` resources as users declare them, and the app of the tests in a ConfigMap.

What of an image stands for a build here is the ConfigMap's name: another code, another build, and no image is built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import images
from tests.e2e import errands, objects
from tests.e2e.release import NAMESPACE, Release, until

Object = dict[str, Any]

APP = Path(errands.__file__)
LEDGER_PORT = 8000
_LEDGER_FILE = "/lines/ledger"
_LEDGER_ENV = [{"name": "LEDGER", "value": f"http://ledger.{NAMESPACE}.svc:{LEDGER_PORT}"}]


def _resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "perdure.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def worker(name: str, tasks: Sequence[str], **spec: Any) -> Object:
    return _resource("Worker", name, {"tasks": list(tasks), **spec})


def workflow(name: str, **spec: Any) -> Object:
    """The resource has the workflow's name, in the letters that Kubernetes lets names have."""
    return _resource("Workflow", name.replace("_", "-"), {"workflow": name, **spec})


def of_code(code: str, **container: Any) -> Object:
    """The part of a spec that says which code: `code` is the name of a ConfigMap."""
    runs = {
        "name": "worker", "image": images.WORKER.name, "imagePullPolicy": "IfNotPresent", **container,
        "volumeMounts": [{"name": "code", "mountPath": "/errands"}],
    }  # fmt: skip
    volumes = [{"name": "code", "configMap": {"name": code}}]
    return {
        "template": {"spec": {"containers": [runs], "volumes": volumes}},
        "app": f"/errands/{APP.name}",
        "env": _LEDGER_ENV,
    }


def code(name: str, told: str) -> Object:
    """A ConfigMap of the app, whose runs say that they are of this code."""
    changed = APP.read_text("utf-8").replace(f'CODE = "{errands.CODE}"', f'CODE = "{told}"')
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {APP.name: changed}}


ONE = {"min": 1, "max": 1}
ERRAND = workflow("errand", **of_code("errands"), scaling=ONE)
TOIL = worker("toil", ["toil"], **of_code("errands"), scaling=ONE)


@dataclass(frozen=True, slots=True)
class Errands:
    """Perdure with the ledger and the code of the tests in it."""

    release: Release

    def prepare(self) -> None:
        self.release.apply(
            code("errands", errands.CODE),
            objects.files("ledger", APP.parent / "ledger.py"),
            objects.service("ledger", LEDGER_PORT),
            objects.deployment(
                "ledger", images.WORKER.name, command=["python", "/ledger/ledger.py", str(LEDGER_PORT), _LEDGER_FILE],
                port=LEDGER_PORT, ready="/",
                folders={"/ledger": {"configMap": {"name": "ledger"}}, "/lines": {"emptyDir": {}}},
            ),
        )  # fmt: skip
        self.release.kubectl("rollout", "status", "deployment/ledger", "--timeout=180s")

    @contextmanager
    def declared(self, *pools: Object) -> Iterator[None]:
        """While it lasts, these are declared and followed; then they go, and their pods with them."""
        names = [f"{pool['kind'].lower()}/{pool['metadata']['name']}" for pool in pools]
        self.release.apply(*pools)
        try:
            self.release.kubectl("wait", "--for=condition=Accepted", "--timeout=60s", *names)
            yield
        finally:
            self.release.kubectl("delete", "--timeout=60s", "--ignore-not-found", *names)

    def told(self, began_or_ended: str, names: Iterable[str]) -> Counter[str]:
        """How often each of these began, or ended."""
        lines = Counter(self.release.kubectl("exec", "deployment/ledger", "--", "cat", _LEDGER_FILE).splitlines())
        return Counter({name: count for name in names if (count := lines[f"{name} {began_or_ended}"])})

    def status(self, kind: str, name: str) -> Object:
        found: Object = self.release.get(kind, name).get("status") or {}
        return found

    def condition(self, kind: str, name: str, type: str) -> Object:
        found = [each for each in self.status(kind, name).get("conditions", ()) if each["type"] == type]
        return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}

    def await_condition(self, kind: str, name: str, type: str, *, reason: str, seconds: float = 60) -> Object:
        """The condition, once it has this reason."""

        def look() -> Object | None:
            found = self.condition(kind, name, type)
            return found if found["reason"] == reason else None

        return until(f"{type} of {kind} {name} has reason {reason}", look, seconds)

    def await_pods(self, kind: str, name: str, count: int, seconds: float = 120) -> list[Object]:
        """The resource's pods, once there are so many and all are ready."""

        def look() -> list[Object] | None:
            pods = self.release.pods(f"perdure.dev/{kind}={name}")
            return pods if len(pods) == count and all(map(is_ready, pods)) else None

        return until(f"{kind} {name} has {count} pods that are ready", look, seconds)


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
