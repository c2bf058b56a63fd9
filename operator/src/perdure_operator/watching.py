"""What says that a resource has to be looked at: watches, a list from time to time, and work that waits at the API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import kopf

from perdure_operator.connecting import Connections, Link
from perdure_operator.facts import Waiting
from perdure_operator.health import Health
from perdure_operator.objects import GROUP, MANAGED_BY, MANAGER, POOL_KINDS, VERSION, Key, key_of
from perdure_operator.ports import Kubernetes, Perdure, Unavailable
from perdure_operator.reading import meanings
from perdure_operator.resources import Pool
from perdure_operator.working import Working

log = logging.getLogger("perdure.operator")

LISTED_EVERY_S = 60.0
"""Two lists a minute: what a watch did not tell is found by them."""
WAKING_EVERY_S = 3.0
"""How often work for pools without pods is asked for: a good part of the 15 s from zero."""

Version: TypeAlias = tuple[str, int]
"""Of a resource and its spec: uid and generation. What is made again under its name begins again with generation 1."""


class Seen:
    """What of each resource was last told of: an event of a status alone is none, one of another under its name is."""

    def __init__(self) -> None:
        self._versions: dict[Key, Version] = {}

    def is_news(self, key: Key, metadata: Mapping[str, Any], *, deleted: bool = False) -> bool:
        if deleted:
            self._versions.pop(key, None)
            return True
        known, version = self._versions.get(key), _version(metadata)
        self._versions[key] = version
        return known != version

    def has(self, key: Key, metadata: Mapping[str, Any]) -> bool:
        return self._versions.get(key) == _version(metadata)


def _version(metadata: Mapping[str, Any]) -> Version:
    return metadata["uid"], metadata.get("generation", 1)


def registry(working: Working, connections: Connections, seen: Seen, health: Health) -> kopf.OperatorRegistry:
    """kopf's part: watch, and say what to look at."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)

    @kopf.on.event(GROUP, VERSION, "workers", registry=found)
    @kopf.on.event(GROUP, VERSION, "workflows", registry=found)
    async def pool(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        health.heard()
        metadata = body["metadata"]
        key = Key(body["kind"], metadata["namespace"], metadata["name"])
        if seen.is_news(key, metadata, deleted=type == "DELETED"):
            working.add(key)

    @kopf.on.event(GROUP, VERSION, "connections", registry=found)
    async def connection(body: Mapping[str, Any], **_: Any) -> None:
        health.heard()
        metadata = body["metadata"]
        connections.forget(metadata["namespace"], metadata["name"])
        for key in working.followed():
            if key.namespace == metadata["namespace"]:
                working.add(key)

    @kopf.on.event("apps", "v1", "deployments", labels={MANAGED_BY: MANAGER}, registry=found)
    @kopf.on.event("", "v1", "pods", labels={MANAGED_BY: MANAGER}, registry=found)
    async def owned(body: Mapping[str, Any], **_: Any) -> None:
        health.heard()
        key = key_of(body)
        if key is not None:
            working.add(key)

    return found


def kopf_settings() -> kopf.OperatorSettings:
    """All that could make kopf write, wait or watch in another way than is meant here."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.persistence.finalizer = f"{GROUP}/never-set"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.scanning.disabled = True  # else it wants to watch CRDs and namespaces
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.watching.inactivity_timeout = 70.0
    for plural in ("deployments.v1.apps", "pods.v1"):
        settings.watching.label_selectors[plural] = f"{MANAGED_BY}={MANAGER}"
    settings.queueing.worker_limit = 100
    settings.process.ultimate_exiting_timeout = 20.0
    return settings


async def list_again(kubernetes: Kubernetes, namespace: str, working: Working, seen: Seen, *, health: Health) -> None:
    """Until canceled: look at what a watch has not told of, and say so if it does not tell at all.

    And at what is not followed: a watch that begins again tells of no deletion, and may have told of a resource before
    the end of another of its name was noticed.
    """
    unheard: set[Key] = set()
    while True:
        now: set[Key] = set()
        try:
            followed = set(working.followed())
            for kind in POOL_KINDS:
                for item in await kubernetes.list(kind, namespace, {}):
                    metadata = item["metadata"]
                    key = Key(kind, metadata["namespace"], metadata["name"])
                    if not seen.has(key, metadata):
                        now.add(key)
                    if key in now or key not in followed:
                        working.add(key)
            health.listed(missed=len(now & unheard))
        except Unavailable as error:
            log.warning("not listed", extra={"action": "list_failed", "error": str(error)})
            health.listed(missed=None)
        unheard = now
        await asyncio.sleep(LISTED_EVERY_S)


async def wake(pools: Mapping[Key, tuple[Pool, Link]], working: Working) -> None:
    """Until canceled: have pools looked at for whose names something waits. No API waits for the answer of another."""
    asked: set[int] = set()

    async def ask(perdure: Perdure) -> None:
        await _wake_by(perdure, pools, working)
        asked.discard(id(perdure))

    async with asyncio.TaskGroup() as tasks:
        while True:
            for perdure in _apis(pools):
                if id(perdure) not in asked:
                    asked.add(id(perdure))
                    tasks.create_task(ask(perdure))
            await asyncio.sleep(WAKING_EVERY_S)


async def _wake_by(perdure: Perdure, pools: Mapping[Key, tuple[Pool, Link]], working: Working) -> None:
    try:
        backlog = await perdure.backlog()
    except Unavailable as error:
        log.warning("need not known", extra={"action": "backlog_failed", "error": str(error)})
        return
    except Exception:  # a defect: what one API brings up must not end the operator of all
        log.exception("need not known", extra={"action": "backlog_failed"})
        return
    for key in waited_for(backlog, ((pool, link) for pool, link in pools.values() if link.perdure is perdure)):
        working.add(key, urgent=True)


def waited_for(backlog: Sequence[Waiting], pools: Iterable[tuple[Pool, Link]]) -> list[Key]:
    """The pools which have to do with something that waits."""
    names = {(each.kind, name) for each in backlog if each.waiting > 0 for name, _ in meanings(each)}
    return [pool.key for pool, _ in pools if any((pool.served, name) in names for name in pool.names)]


def _apis(pools: Mapping[Key, tuple[Pool, Link]]) -> list[Perdure]:
    return list({id(link.perdure): link.perdure for _, link in pools.values()}.values())
