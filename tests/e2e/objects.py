"""Objects of Kubernetes that the tests declare as a user would, under restricted Pod Security."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_POD_SECURITY = {
    "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}
}  # fmt: skip
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
}  # fmt: skip


def deployment(
    name: str,
    image: str,
    *,
    env: Sequence[Mapping[str, Any]] = (),
    command: Sequence[str] = (),
    port: int,
    ready: str,
    folders: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """One pod that is ready when the path answers; `folders` has a volume's source by where it is mounted."""
    volumes = [{"name": f"volume-{number}", **source} for number, source in enumerate(folders.values())]
    mounts = [{"name": f"volume-{number}", "mountPath": path} for number, path in enumerate(folders)]
    container = {
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "env": list(env), "volumeMounts": mounts,
        "securityContext": _CONTAINER_SECURITY, "ports": [{"containerPort": port}],
        "readinessProbe": {"httpGet": {"path": ready, "port": port}, "periodSeconds": 1, "timeoutSeconds": 5},
        **({"command": list(command)} if command else {}),
    }  # fmt: skip
    labels = {"app": name}
    pod = {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": _POD_SECURITY,
        "containers": [container],
        "volumes": volumes,
    }
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {**pod, "automountServiceAccountToken": False}},
        },
    }  # fmt: skip


def service(name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }  # fmt: skip


def files(name: str, *paths: Path) -> dict[str, Any]:
    """A ConfigMap of these files."""
    data = {path.name: path.read_text("utf-8") for path in paths}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
