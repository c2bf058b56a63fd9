"""Objects of Kubernetes as they stand in JSON, and the names that the operator gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Object: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["Worker", "Workflow", "Connection", "Deployment", "Pod", "ServiceAccount", "Secret",
                          "PodDisruptionBudget", "Lease", "ScaledObject", "TriggerAuthentication"]  # fmt: skip
PoolKind: TypeAlias = Literal["Worker", "Workflow"]
POOL_KINDS: tuple[PoolKind, ...] = ("Worker", "Workflow")

GROUP = "perdure.dev"
VERSION = "v1alpha1"
MANAGER = "perdure-operator"
"""Field manager of what is applied, and the value of `app.kubernetes.io/managed-by`."""
MANAGED_BY = "app.kubernetes.io/managed-by"
BUILD_LABEL = f"{GROUP}/build"
APPLIED = f"{GROUP}/applied"
"""Annotation: a digest of what was applied, so that what is wanted no longer is noticed as well."""
SLOTS = f"{GROUP}/slots"
"""Annotation of a Deployment: how much one of its pods takes at a time."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
LOWEST_COST = -(2**31)
"""The least that Kubernetes takes: of pods that are ready, a ReplicaSet deletes those of lowest cost first."""
CONTAINER = "worker"
"""Of a template: the container that runs the worker."""


@dataclass(frozen=True, slots=True)
class Key:
    """Which resource to reconcile."""

    kind: PoolKind
    namespace: str
    name: str


def label_of(kind: PoolKind) -> str:
    """The label that leads from a Deployment or pod to its resource."""
    return f"{GROUP}/{kind.lower()}"


def key_of(item: Mapping[str, Any]) -> Key | None:
    """The resource that a labelled object belongs to."""
    metadata = item.get("metadata") or {}
    labels = metadata.get("labels") or {}
    for kind in POOL_KINDS:
        if name := labels.get(label_of(kind)):
            return Key(kind, metadata.get("namespace") or "default", name)
    return None
