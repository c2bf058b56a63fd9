"""What a cluster has to have before services start: tenant, namespaces, topics, subscriptions, schemas.

All of it may be repeated, and changes nothing that is there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp

from perdure_runtime.adapters.pulsar.names import BEGUN, family, inbox_namespace
from perdure_runtime.adapters.pulsar.settings import PulsarSettings
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.pools import TopicBacklog
from perdure_schemas import topics
from perdure_schemas.schema import Family as SchemaFamily
from perdure_schemas.schema import envelope_schema

PARTITIONS = 8
"""Of the engines' topics: the most replicas of an engine that share the work. A power of two divides keys evenly.

The timers' topic has one, since their table has one shard: a second owner would only take it from the first."""
_INBOX_IDLE_S = 60
"""A topic of an instance that has gone vanishes after this time."""
_INBOX_SUBSCRIPTION_MINUTES = 5
"""An instance that died leaves its subscription; nobody reads it any more."""
_INBOX_TTL_S = 3_600
_BEGUN_KEPT = {"retentionTimeInMinutes": 15, "retentionSizeInMB": -1}
"""Of what workers tell of what they began: three deaths and the pauses between them, and no more than one that starts
reads in a moment. Bounded by time alone, since Pulsar takes no size below its quota for backlogs: 1,000 long attempts a
second are 20 MB."""
_TIMEOUT_S = 30.0
_NOTHING: dict[str, str] = {}
_ERROR = 400
_CONFLICT = 409
_REFUSALS = (401, 403)
_NOT_FOUND = 404

_ENGINE_TOPICS: dict[str, SchemaFamily] = {
    topics.WORKFLOW_ENGINE: "workflow-engine",
    topics.TASK_ENGINE: "task-engine",
    topics.TIMERS: "timers",
    topics.WORKFLOW_EVENTS: "events",
    topics.TASK_EVENTS: "events",
}


class PulsarAdmin:
    """Pulsar's REST API, as far as Perdure uses it."""

    def __init__(self, session: aiohttp.ClientSession, settings: PulsarSettings) -> None:
        self._session = session
        self._base = settings.admin_url.rstrip("/") + "/admin/v2"
        self._tenant = settings.tenant

    async def init(self, namespace: str, partitions: int = PARTITIONS) -> None:
        """Make everything a namespace needs.

        Raises:
            StorageUnavailable: Pulsar cannot be reached, or refuses.
        """
        clusters = await self._get("clusters")
        await self._put(f"tenants/{self._tenant}", {"allowedClusters": clusters, "adminRoles": []})
        place, inboxes = f"{self._tenant}/{namespace}", f"{self._tenant}/{inbox_namespace(namespace)}"
        for name in (place, inboxes):
            await self._put(f"namespaces/{name}")
        await self._put(f"namespaces/{place}/schemaCompatibilityStrategy", "FULL_TRANSITIVE")
        await self._post(
            f"namespaces/{inboxes}/inactiveTopicPolicies",
            {
                "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
                "maxInactiveDurationSeconds": _INBOX_IDLE_S,
                "deleteWhileInactive": True,
            },
        )
        await self._post(f"namespaces/{inboxes}/messageTTL", _INBOX_TTL_S)
        await self._post(f"namespaces/{inboxes}/subscriptionExpirationTime", _INBOX_SUBSCRIPTION_MINUTES)
        for topic, schema in _ENGINE_TOPICS.items():
            await self._topic(place, topic, 1 if topic == topics.TIMERS else partitions)
            await self._schema(place, topic, schema)
            await self._topic(place, topics.dead_letters(topic), 0)
        await self._topic(place, BEGUN, 0)
        await self._post(f"persistent/{place}/{BEGUN}/retention", _BEGUN_KEPT)

    async def _topic(self, place: str, topic: str, partitions: int) -> None:
        path = f"persistent/{place}/{_quoted(topic)}"
        if partitions:
            await self._put(f"{path}/partitions", partitions)
        else:
            await self._put(path)
        subscription = family(topic).subscription
        if subscription:
            await self._put(f"{path}/subscription/{subscription}", {"ledgerId": -1, "entryId": -1})

    async def _schema(self, place: str, topic: str, of: SchemaFamily) -> None:
        body = {"type": "AVRO", "schema": json.dumps(envelope_schema(of)), "properties": {}}
        await self._post(f"schemas/{place}/{_quoted(topic)}/schema", body)

    async def backlog(self, namespace: str, topic: str, subscription: str) -> int:
        """Messages of a topic that the subscription has not acknowledged; 0 where there is no such topic."""
        path = f"persistent/{self._tenant}/{namespace}/{_quoted(topic)}"
        stats = (
            await self._get(f"{path}/partitioned-stats")
            if topic in _ENGINE_TOPICS
            else await self._get(f"{path}/stats")
        )
        found = (stats or {}).get("subscriptions", {}).get(subscription, {})
        return int(found.get("msgBacklog", 0))

    async def of_workers(self, namespace: str, topic: str, subscription: str) -> TopicBacklog:
        """Of a topic without partitions. What waits is counted by what was published together: a batch is one."""
        path = f"persistent/{self._tenant}/{namespace}/{_quoted(topic)}/stats"
        stats = await self._get(f"{path}?getPreciseBacklog=true&subscriptionBacklogSize=false")
        found = (stats or {}).get("subscriptions", {}).get(subscription, {})
        in_flight = int(found.get("unackedMessages", 0))
        waiting = int(found.get("msgBacklog", 0)) - in_flight - int(found.get("msgDelayed", 0))
        return TopicBacklog(topic, max(0, waiting), in_flight)

    async def make(self, namespace: str, topic: str) -> None:
        """A topic without partitions, and the subscription that is to miss nothing of it. What is there stays."""
        await self._topic(f"{self._tenant}/{namespace}", topic, 0)

    async def consumed(self, namespace: str, topic: str, subscription: str) -> bool:
        """Whether somebody is connected to the subscription of this topic, which has no partitions."""
        stats = await self._get(f"persistent/{self._tenant}/{namespace}/{_quoted(topic)}/stats")
        return bool((stats or {}).get("subscriptions", {}).get(subscription, {}).get("consumers"))

    async def topics(self, namespace: str) -> list[str]:
        """Names of the namespace's topics, each once; none where there is no such namespace."""
        place = f"{self._tenant}/{namespace}"
        names = [
            name for path in (place, f"{place}/partitioned") for name in await self._get(f"persistent/{path}") or ()
        ]
        return sorted({name.rsplit("/", 1)[1].split("-partition-")[0] for name in names})

    async def peek(self, namespace: str, topic: str, subscription: str, number: int) -> tuple[Mapping[str, str], bytes]:
        """Headers and bytes of the message that so many of those not acknowledged end with; 1: the oldest.

        Nothing where there are not so many.
        """
        path = f"persistent/{self._tenant}/{namespace}/{_quoted(topic)}/subscription/{subscription}/position/{number}"
        async with self._request("GET", path, None) as answer:
            return answer.headers, await answer.read() if answer.status < _ERROR else b""

    async def _get(self, path: str) -> Any:
        return await self._call("GET", path, None)

    async def _put(self, path: str, body: object = _NOTHING) -> None:
        await self._call("PUT", path, body)

    async def _post(self, path: str, body: object) -> None:
        await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: object) -> Any:
        async with self._request(method, path, body) as answer:
            text = await answer.text() if answer.status != _NOT_FOUND else ""
        return json.loads(text) if text and method == "GET" else None

    @asynccontextmanager
    async def _request(self, method: str, path: str, body: object) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer: to a read also that there is no such thing, to a write also that it was done before."""
        try:
            async with self._session.request(method, f"{self._base}/{path}", json=body) as answer:
                fine = answer.status < _ERROR or answer.status == (_NOT_FOUND if method == "GET" else _CONFLICT)
                if answer.status in _REFUSALS:
                    raise StorageUnavailable(
                        f"Pulsar's REST API at {self._base} refuses our credentials for {method} {path}: "
                        f"{answer.status} {answer.reason} (see PERDURE_PULSAR_TOKEN)"
                    )
                if not fine:
                    raise StorageUnavailable(
                        f"Pulsar refused {method} {path}: {answer.status} {(await answer.text())[:300]}"
                    )
                yield answer
        except (TimeoutError, aiohttp.ClientError) as error:
            raise StorageUnavailable(
                f"Pulsar's REST API at {self._base} cannot be reached: {str(error) or repr(error)} "
                "(see PERDURE_PULSAR_ADMIN_URL)"
            ) from error


@asynccontextmanager
async def open_admin(settings: PulsarSettings) -> AsyncIterator[PulsarAdmin]:
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield PulsarAdmin(session, settings)


def _quoted(topic: str) -> str:
    return quote(topic, safe="-._~")
