"""What should be in the cluster for one pool: a pure function of its spec and its connection."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec

from perdure_operator.builds import build_of, deployment_name, short_name
from perdure_operator.objects import (
    APPLIED,
    BUILD_LABEL,
    CONTAINER,
    DELETION_COST,
    GROUP,
    MANAGED_BY,
    MANAGER,
    SLOTS,
    VERSION,
    Object,
    label_of,
)
from perdure_operator.resources import Connection, Pool, SecretKey
from perdure_schemas.ids import derive_id

PROBE_PORT = 9464
GRACE_AFTER_DRAIN_S = 15
"""Between the end of the drain time-out and SIGKILL: to hand work back, flush and close."""
NOBODY = 65_532
"""User of the images, where a template names none: `runAsNonRoot` needs a number."""
_NAME_MAX = 63
_CA_FOLDER = "/etc/perdure/pulsar-ca"
_TMP_LIMIT = "1Gi"
"""A worker has large values in memory, not in /tmp; what user code leaves there must not fill the node."""


def deployment(pool: Pool, connection: Connection, replicas: int) -> Object:
    """The Deployment of the pool's present build."""
    build = build_of(pool)
    selector = {**selector_of(pool), BUILD_LABEL: build}
    wanted: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            **metadata_of(pool, deployment_name(pool, build)),
            "annotations": {SLOTS: str(pool.spec.slots)},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "revisionHistoryLimit": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": _pod(pool, connection, build),
        },
    }
    wanted["metadata"]["labels"][BUILD_LABEL] = build
    return marked(wanted)


def service_account(pool: Pool) -> Object:
    """Of the pods: workers have nothing to ask Kubernetes."""
    return marked(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata_of(pool, account_name(pool)),
            "automountServiceAccountToken": False,
        }
    )


def disruption_budget(pool: Pool) -> Object:
    """A quarter of the pods at a time: to drain a node is slowed, never blocked."""
    return marked(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata_of(pool, account_name(pool)),
            "spec": {
                "maxUnavailable": "25%",
                "selector": {"matchLabels": selector_of(pool)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    )


def account_name(pool: Pool) -> str:
    """A Worker and a Workflow may have the same name."""
    suffix = f"-{pool.kind.lower()}"
    return short_name(pool.key.name, _NAME_MAX - len(suffix)) + suffix


def selector_of(pool: Pool) -> dict[str, str]:
    """Labels that all pods of the pool have, and no others."""
    return {MANAGED_BY: MANAGER, label_of(pool.kind): pool.key.name}


def is_of(deployment: Object, pool: Pool) -> bool:
    """By its selector, which nobody can change, while its own labels anybody can."""
    selected = deployment["spec"]["selector"].get("matchLabels") or {}
    return bool(selector_of(pool).items() <= selected.items())


def metadata_of(pool: Pool, name: str) -> Object:
    """Of an object that goes with the pool."""
    return {
        "name": name,
        "namespace": pool.key.namespace,
        "labels": {"app.kubernetes.io/name": short_name(pool.key.name, _NAME_MAX), **selector_of(pool)},
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": pool.kind,
                "name": pool.key.name,
                "uid": pool.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def is_owned(item: Object, pool: Pool) -> bool:
    """Whether it was made for this very pool."""
    return any(owner.get("uid") == pool.uid for owner in item["metadata"].get("ownerReferences") or [])


def marked(wanted: Object) -> Object:
    """With a digest of itself; the number of replicas changes by itself and is no part of it."""
    told = {**wanted, "spec": {k: v for k, v in wanted.get("spec", {}).items() if k != "replicas"}}
    digest = derive_id("applied", msgspec.json.encode(told, order="deterministic").decode())
    annotations = {**wanted["metadata"].get("annotations", {}), APPLIED: digest}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def _pod(pool: Pool, connection: Connection, build: str) -> Object:
    template = deepcopy(pool.spec.template) or {"spec": {"containers": [{"name": CONTAINER, "image": pool.spec.image}]}}
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        "app.kubernetes.io/name": short_name(pool.key.name, _NAME_MAX),
        **selector_of(pool),
        BUILD_LABEL: build,
    }
    if annotations := metadata.get("annotations"):
        annotations.pop(DELETION_COST, None)  # it tells which pods may go: see `scaling`
    spec = template["spec"]
    spec.setdefault("serviceAccountName", account_name(pool))
    spec.setdefault("automountServiceAccountToken", False)
    spec["enableServiceLinks"] = False  # a Service named perdure-api would set PERDURE_API_PORT
    spec["terminationGracePeriodSeconds"] = pool.spec.drain_timeout_seconds + GRACE_AFTER_DRAIN_S
    spec["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": NOBODY,
        "seccompProfile": {"type": "RuntimeDefault"},
        **(spec.get("securityContext") or {}),
    }
    _add_volume(spec, {"name": "tmp", "emptyDir": {"sizeLimit": _TMP_LIMIT}})
    if connection.pulsar.ca_secret is not None:
        _add_volume(spec, _ca_volume(connection.pulsar.ca_secret))
    for container in spec["containers"]:
        container["securityContext"] = {**_RESTRICTED, **(container.get("securityContext") or {})}
        if container["name"] == CONTAINER:
            _complete(container, pool, connection, build)
    for container in spec.get("initContainers") or []:
        container["securityContext"] = {**_RESTRICTED, **(container.get("securityContext") or {})}
    return template


_RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
"""As the restricted Pod Security Standard asks; a template may say otherwise where a namespace lets it."""


def _complete(container: Object, pool: Pool, connection: Connection, build: str) -> None:
    spec = pool.spec
    if spec.image_pull_policy is not None:
        container["imagePullPolicy"] = spec.image_pull_policy
    if spec.resources is not None:
        container["resources"] = spec.resources
    env = [*(container.get("env") or []), *spec.env, *_environment(pool, connection, build)]
    container["env"] = list({entry["name"]: entry for entry in env}.values())
    if given := [*(container.get("envFrom") or []), *spec.env_from]:
        container["envFrom"] = given
    mounts = container.setdefault("volumeMounts", [])
    if all(mount.get("mountPath") != "/tmp" for mount in mounts):
        mounts.append({"name": "tmp", "mountPath": "/tmp"})
    if connection.pulsar.ca_secret is not None:
        mounts.append({"name": "pulsar-ca", "mountPath": _CA_FOLDER, "readOnly": True})
    ports = container.setdefault("ports", [])
    ports.append({"name": "probes", "containerPort": PROBE_PORT, "protocol": "TCP"})
    container.setdefault("startupProbe", {**_probe("/healthz", period=2), "failureThreshold": 60})
    container.setdefault("livenessProbe", {**_probe("/healthz", period=20), "failureThreshold": 3})
    container["readinessProbe"] = {**_probe("/readyz", period=2), "failureThreshold": 1}  # `scaling` relies on it


def _probe(path: str, period: int) -> Object:
    return {"httpGet": {"path": path, "port": PROBE_PORT}, "periodSeconds": period, "timeoutSeconds": 5}


def _environment(pool: Pool, connection: Connection, build: str) -> list[Object]:
    said = {
        "PERDURE_APP": pool.spec.app,
        "PERDURE_BUILD": build,
        "PERDURE_TASKS" if pool.kind == "Worker" else "PERDURE_WORKFLOWS": ",".join(pool.names),
        "PERDURE_SLOTS": str(pool.spec.slots),
        "PERDURE_GRACE_SECONDS": str(pool.spec.drain_timeout_seconds),
        "PERDURE_NAMESPACE": connection.namespace,
        "PERDURE_PULSAR_URL": connection.pulsar.url,
        "PERDURE_PULSAR_TENANT": connection.pulsar.tenant,
        "PERDURE_URL": connection.api.url,
        "PERDURE_PROBE_HOST": "0.0.0.0",
        "PERDURE_PROBE_PORT": str(PROBE_PORT),
        "PYTHONHASHSEED": "0",
    }
    if connection.pulsar.ca_secret is not None:
        said["PERDURE_PULSAR_TLS_CA"] = f"{_CA_FOLDER}/ca.crt"
    entries: list[Object] = [{"name": name, "value": value} for name, value in said.items()]
    entries.append(_from_pod("PERDURE_INSTANCE", "metadata.name"))
    entries.append(_from_pod("PERDURE_DELETION_COST", f"metadata.annotations['{DELETION_COST}']"))
    entries += _from_secret("PERDURE_PULSAR_TOKEN", connection.pulsar.token_secret)
    entries += _from_secret("PERDURE_PULSAR_OAUTH2", connection.pulsar.oauth2_secret)
    entries += _from_secret("PERDURE_TOKEN", connection.api.token_secret)
    return entries


def _from_pod(variable: str, path: str) -> Object:
    """What it is when the container starts, each time."""
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _from_secret(variable: str, secret: SecretKey | None) -> list[Object]:
    if secret is None:
        return []
    return [{"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}]


def _ca_volume(secret: SecretKey) -> Object:
    items: list[dict[str, Any]] = [{"key": secret.key, "path": "ca.crt"}]
    return {"name": "pulsar-ca", "secret": {"secretName": secret.name, "items": items}}


def _add_volume(spec: Object, volume: Object) -> None:
    volumes = spec.setdefault("volumes", [])
    if all(each.get("name") != volume["name"] for each in volumes):
        volumes.append(volume)
