"""What goes over the wire to an API server, and what its answers become."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from perdure_operator.kubernetes import ALL_NAMESPACES, LightkubeCluster
from perdure_operator.objects import MANAGER, Key, Object
from perdure_operator.ports import Changed, Forbidden, NotServed, Refused, Unavailable

pytestmark = pytest.mark.asyncio
DEPLOYMENT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "shop"},
    "spec": {"newer": {"field": 1}},
}


class Server:
    def __init__(self, status: int = 200, body: Object | None = None, *, plain: bool = False) -> None:
        """`plain`: no kind of error, as for a path that the API server does not serve."""
        self.status = status
        self.plain = plain
        self.body = DEPLOYMENT if body is None else body
        self.asked: list[tuple[str, str, str, Any]] = []

    def cluster(self) -> LightkubeCluster:
        config = KubeConfig.from_one(cluster=Cluster(server="http://server"), user=User(token="t"))
        return LightkubeCluster(
            AsyncClient(config=config, field_manager=MANAGER, transport=httpx2.MockTransport(self._answer))
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, str(request.url), request.headers.get("content-type", ""), body))
        if self.status == 0:
            raise httpx2.ConnectError("refused")
        if self.plain:
            return httpx2.Response(self.status, text="404 page not found\n")
        if self.status >= 400:
            told = {"kind": "Status", "code": self.status, "message": "said so", "status": "Failure"}
            return httpx2.Response(self.status, json=told)
        return httpx2.Response(self.status, json=self.body)


async def test_an_object_is_read_as_it_is() -> None:
    server = Server()
    assert await server.cluster().get("Deployment", "shop", "d") == DEPLOYMENT
    assert server.asked[0][:2] == ("GET", "http://server/apis/apps/v1/namespaces/shop/deployments/d")


async def test_what_is_not_there_is_none() -> None:
    assert await Server(404).cluster().get("Worker", "shop", "w") is None


async def test_a_list_has_a_selector_or_all_namespaces() -> None:
    server = Server(body={"kind": "List", "metadata": {}, "items": [DEPLOYMENT]})
    assert await server.cluster().list("Pod", "shop", {"a": "b", "c": "d"}) == [DEPLOYMENT]
    await server.cluster().list("Worker", ALL_NAMESPACES, {})
    first, second = (url for _, url, _, _ in server.asked)
    assert first.startswith("http://server/api/v1/namespaces/shop/pods?")
    assert "labelSelector=a%3Db%2Cc%3Dd" in first
    assert second.split("?")[0] == "http://server/apis/perdure.dev/v1alpha1/workers"


async def test_apply_is_server_side_and_says_who() -> None:
    server = Server()
    assert await server.cluster().apply(DEPLOYMENT) == DEPLOYMENT
    method, url, kind, body = server.asked[0]
    assert (method, kind, body) == ("PATCH", "application/apply-patch+yaml", DEPLOYMENT)
    assert "fieldManager=perdure-operator" in url
    assert "force=true" in url


async def test_a_status_is_applied_to_its_own_part() -> None:
    server = Server()
    await server.cluster().apply_status(Key("Worker", "shop", "w"), {"replicas": 1})
    _, url, _, body = server.asked[0]
    assert url.split("?")[0] == "http://server/apis/perdure.dev/v1alpha1/namespaces/shop/workers/w/status"
    assert body["status"] == {"replicas": 1}
    await Server(404).cluster().apply_status(Key("Worker", "shop", "gone"), {})


async def test_replicas_change_only_on_what_was_looked_at() -> None:
    server = Server()
    await server.cluster().scale("shop", "d", 3, "17")
    assert server.asked[0][3] == {"metadata": {"resourceVersion": "17"}, "spec": {"replicas": 3}}
    assert server.asked[0][2] == "application/merge-patch+json"


async def test_an_annotation_is_set_and_taken_away() -> None:
    server = Server()
    await server.cluster().annotate("shop", "p", "a/b", None)
    assert server.asked[0][3] == {"metadata": {"annotations": {"a/b": None}}}
    await Server(404).cluster().annotate("shop", "gone", "a", "1")
    await Server(404).cluster().delete("Deployment", "shop", "gone")


async def test_replicas_of_a_resource_are_set_by_its_scale() -> None:
    server = Server(body={"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {"replicas": 3}})
    await server.cluster().set_replicas(Key("Worker", "shop", "w"), 3)
    method, url, kind, body = server.asked[0]
    assert url.split("?")[0] == "http://server/apis/perdure.dev/v1alpha1/namespaces/shop/workers/w/scale"
    assert (method, kind, body) == ("PATCH", "application/merge-patch+json", {"spec": {"replicas": 3}})
    await Server(404).cluster().set_replicas(Key("Worker", "shop", "gone"), 0)


SCALED: Object = {
    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "s", "namespace": "shop"}
}  # fmt: skip


@pytest.mark.parametrize("plain", [True, False])
async def test_a_kind_that_is_not_installed_is_told_apart(plain: bool) -> None:
    cluster = Server(404, plain=plain).cluster()
    assert await cluster.get("ScaledObject", "shop", "s") is None
    with pytest.raises(NotServed, match=r"no ScaledObject of keda\.sh/v1alpha1"):
        await cluster.apply(SCALED)


async def test_leases_are_made_and_replaced() -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l", "namespace": "ops", "resourceVersion": "3"},
        "spec": {"holderIdentity": "a"},
    }
    server = Server(body=lease)
    await server.cluster().create(lease)
    await server.cluster().replace(lease)
    base = "http://server/apis/coordination.k8s.io/v1/namespaces/ops/leases"
    assert [(method, url.split("?")[0], body) for method, url, _, body in server.asked] == [
        ("POST", base, lease),
        ("PUT", f"{base}/l", lease),
    ]
    with pytest.raises(Changed):
        await Server(409).cluster().create(lease)


CALLS: list[Callable[[LightkubeCluster], Coroutine[Any, Any, Any]]] = [
    lambda cluster: cluster.get("Deployment", "shop", "d"),
    lambda cluster: cluster.list("Pod", "shop", {}),
    lambda cluster: cluster.apply(DEPLOYMENT),
    lambda cluster: cluster.apply_status(Key("Worker", "shop", "w"), {}),
    lambda cluster: cluster.scale("shop", "d", 1, "1"),
    lambda cluster: cluster.annotate("shop", "p", "a", "1"),
    lambda cluster: cluster.delete("Deployment", "shop", "d"),
    lambda cluster: cluster.set_replicas(Key("Worker", "shop", "w"), 1),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [0, 500])
async def test_an_outage_is_unavailable(call: Callable[[LightkubeCluster], Any], status: int) -> None:
    with pytest.raises(Unavailable, match="Kubernetes, of "):
        await call(Server(status).cluster())


@pytest.mark.parametrize("call", [call for call in CALLS if call is not CALLS[2]])
async def test_a_right_that_is_missing_is_told_apart(call: Callable[[LightkubeCluster], Any]) -> None:
    with pytest.raises(Forbidden, match="said so"):
        await call(Server(403).cluster())


@pytest.mark.parametrize(("status", "raised"), [(409, Changed), (422, Refused), (403, Refused), (429, Unavailable)])
async def test_why_an_object_was_not_applied(status: int, raised: type[Exception]) -> None:
    with pytest.raises(raised, match="said so"):
        await Server(status).cluster().apply(DEPLOYMENT)
