"""The cluster, by lightkube. Objects stay JSON as they came: what newer servers add is not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.generic_resource import GenericNamespacedResource, create_api_info, create_namespaced_resource
from lightkube.types import CascadeType, PatchType

from perdure_operator.objects import GROUP, MANAGER, VERSION, Key, Kind, Object
from perdure_operator.ports import Changed, Forbidden, NotServed, Refused, Unavailable

TIMEOUT_S = 20.0
"""An API server that is asked for one object, or those of one pool, has answered by then."""

_FORBIDDEN = 403
_GONE = 404
_CONFLICT = 409
_WRONG = frozenset({400, 403, 413, 422})
"""Of an apply: the object is wrong, or a policy forbids it. To try again without a change is of no use."""


def _resource(group: str, version: str, kind: str, plural: str) -> type[GenericNamespacedResource]:
    """lightkube's models would drop fields that are newer than they are."""
    return type(kind, (GenericNamespacedResource,), {"_api_info": create_api_info(group, version, kind, plural)})


ALL_NAMESPACES = "*"
_RESOURCES: dict[Kind, type[GenericNamespacedResource]] = {
    "Worker": create_namespaced_resource(GROUP, VERSION, "Worker", "workers"),
    "Workflow": create_namespaced_resource(GROUP, VERSION, "Workflow", "workflows"),
    "Connection": create_namespaced_resource(GROUP, VERSION, "Connection", "connections"),
    "Deployment": _resource("apps", "v1", "Deployment", "deployments"),
    "Pod": _resource("", "v1", "Pod", "pods"),
    "ServiceAccount": _resource("", "v1", "ServiceAccount", "serviceaccounts"),
    "Secret": _resource("", "v1", "Secret", "secrets"),
    "PodDisruptionBudget": _resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    "Lease": _resource("coordination.k8s.io", "v1", "Lease", "leases"),
    "ScaledObject": _resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    "TriggerAuthentication": _resource("keda.sh", "v1alpha1", "TriggerAuthentication", "triggerauthentications"),
}


class LightkubeCluster:
    """As the port `Kubernetes`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        with _translated(f"{kind} {name}"):
            try:
                return _plain(await self._client.get(_RESOURCES[kind], name, namespace=namespace))
            except httpx2.HTTPStatusError as error:
                if error.response.status_code == _GONE:
                    return None
                raise

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Object]:
        with _translated(f"{kind}s"):
            found = self._client.list(_RESOURCES[kind], namespace=namespace, labels=dict(labels))
            return [_plain(each) async for each in found]

    async def apply(self, item: Object) -> Object:
        name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
        with _translated(f"{item['kind']} {name}"):
            try:
                return _plain(
                    await self._client.patch(
                        _RESOURCES[item["kind"]], name, item, namespace=namespace,
                        patch_type=PatchType.APPLY, field_manager=MANAGER, force=True,
                    )
                )  # fmt: skip
            except httpx2.HTTPStatusError as error:  # no ApiError where the kind is not known: that answer is no JSON
                if error.response.status_code == _GONE:
                    raise NotServed(f"Kubernetes knows no {item['kind']} of {item['apiVersion']}") from error
                if isinstance(error, ApiError) and error.status.code in _WRONG:
                    raise Refused(error.status.message or str(error)) from error
                raise

    async def apply_status(self, key: Key, status: Object) -> None:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": key.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": status,
        }
        with _translated(f"status of {key.kind} {key.name}"), _gone_is_well():
            await self._client.patch(
                _RESOURCES[key.kind].Status, key.name, body, namespace=key.namespace,
                patch_type=PatchType.APPLY, field_manager=MANAGER, force=True,
            )  # fmt: skip

    async def set_replicas(self, key: Key, replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        with _translated(f"scale of {key.kind} {key.name}"), _gone_is_well():
            await self._client.patch(
                _RESOURCES[key.kind].Scale, key.name, body, namespace=key.namespace,
                patch_type=PatchType.MERGE, field_manager=MANAGER,
            )  # fmt: skip

    async def scale(self, namespace: str, deployment: str, replicas: int, version: str) -> None:
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        with _translated(f"Deployment {deployment}"):
            await self._client.patch(
                _RESOURCES["Deployment"], deployment, body, namespace=namespace,
                patch_type=PatchType.MERGE, field_manager=MANAGER,
            )  # fmt: skip

    async def annotate(self, namespace: str, pod: str, annotation: str, value: str | None) -> None:
        body = {"metadata": {"annotations": {annotation: value}}}
        with _translated(f"Pod {pod}"), _gone_is_well():
            await self._client.patch(
                _RESOURCES["Pod"], pod, body, namespace=namespace, patch_type=PatchType.MERGE, field_manager=MANAGER
            )

    async def create(self, item: Object) -> None:
        """Raises Changed if it is there already; Unavailable."""
        made: Any = _RESOURCES[item["kind"]].from_dict(item)
        with _translated(f"{item['kind']} {item['metadata']['name']}"):
            await self._client.create(made)

    async def replace(self, item: Object) -> None:
        """Raises Changed if its resource version is not the last one any more; Unavailable."""
        changed: Any = _RESOURCES[item["kind"]].from_dict(item)
        with _translated(f"{item['kind']} {item['metadata']['name']}"):
            await self._client.replace(changed)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        with _translated(f"{kind} {name}"), _gone_is_well():
            await self._client.delete(_RESOURCES[kind], name, namespace=namespace, cascade=CascadeType.BACKGROUND)


@asynccontextmanager
async def open_cluster() -> AsyncIterator[LightkubeCluster]:
    """By the pod's service account, or by KUBECONFIG."""
    async with AsyncClient(timeout=httpx2.Timeout(TIMEOUT_S), field_manager=MANAGER) as client:
        yield LightkubeCluster(client)


def _plain(item: Any) -> Object:
    found: Object = item.to_dict()
    return found


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status.code == _CONFLICT:
            raise Changed(f"{what}: {error.status.message}") from error
        if error.status.code == _FORBIDDEN:
            raise Forbidden(f"Kubernetes, of {what}: {error.status.message}") from error
        raise Unavailable(f"Kubernetes, of {what}: {error.status.message}") from error
    except httpx2.HTTPError as error:
        raise Unavailable(f"Kubernetes, of {what}: {type(error).__name__} {error}") from error


@contextmanager
def _gone_is_well() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status.code != _GONE:
            raise
