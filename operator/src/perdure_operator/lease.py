"""Of several operators one leads: who holds the Lease. Who loses it ends its process, so that two never lead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from perdure_operator.objects import MANAGED_BY, MANAGER, Kind, Object
from perdure_operator.ports import Changed, Unavailable

log = logging.getLogger("perdure.operator")

NAME = "perdure-operator"
DURATION_S = 15
"""After so long without a renewal another one takes it."""
RENEWED_EVERY_S = 3.0
GIVEN_UP_AFTER_S = 10.0
"""A leader that could not renew for so long stops: before another one may begin, with room for a slow clock."""


class Leases(Protocol):
    """Of Kubernetes. Every method raises Unavailable."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None: ...

    async def create(self, item: Object) -> None:
        """Raises Changed if it is there already."""
        ...

    async def replace(self, item: Object) -> None:
        """Raises Changed if it was changed meanwhile."""
        ...


class Lost(Exception):
    """Another one may lead now."""


class Lease:
    """One candidate's view. Ages are taken on its own clock, from when it saw a renewal: clocks differ."""

    def __init__(self, leases: Leases, namespace: str, me: str, now: Callable[[], float]) -> None:
        self._leases = leases
        self._namespace = namespace
        self._me = me
        self._now = now
        self._seen: tuple[str, float] = ("", now())
        self._renewed = now()

    async def acquire(self) -> None:
        """Until it is ours."""
        while True:
            if await self._renew(self._now() + GIVEN_UP_AFTER_S):
                break
            await asyncio.sleep(RENEWED_EVERY_S)
        log.info("leading", extra={"action": "leading"})

    async def keep(self) -> None:
        """Until canceled; raises Lost, in time whether Kubernetes refuses, is slow or says nothing."""
        asked = self._renewed
        while True:
            until, now = self._renewed + GIVEN_UP_AFTER_S, self._now()
            if now >= until:
                raise Lost(f"the Lease could not be renewed for {GIVEN_UP_AFTER_S:.0f} s")
            await asyncio.sleep(max(0.0, min(asked + RENEWED_EVERY_S, until) - now))
            asked = self._now()
            if await self._renew(until) is False:
                raise Lost("another operator holds the Lease")

    async def release(self) -> None:
        """Let another one lead at once."""
        try:
            found = await self._leases.get("Lease", self._namespace, NAME)
            if found is not None and found["spec"].get("holderIdentity") == self._me:
                await self._leases.replace(
                    {**found, "spec": {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
                )
        except (Changed, Unavailable) as error:
            log.warning("lease not released", extra={"action": "release_failed", "error": str(error)})

    async def _renew(self, until: float) -> bool | None:
        """As `_try`, which has time until then. It is ours from before it was asked for: the answer may come late."""
        asked = self._now()
        try:
            async with asyncio.timeout(until - asked):
                held = await self._try()
        except TimeoutError:
            return None
        if held:
            self._renewed = asked
        return held

    async def _try(self) -> bool | None:
        """Whether it is ours now; None: that cannot be said."""
        try:
            found = await self._leases.get("Lease", self._namespace, NAME)
            if found is None:
                await self._leases.create(self._item({}, {}))
                return True
            holder = found["spec"].get("holderIdentity") or ""
            if holder not in {"", self._me} and not self._is_stale(found):
                return False
            await self._leases.replace(self._item(found["metadata"], found["spec"]))
        except Changed:
            return None
        except Unavailable as error:
            log.warning("lease not reached", extra={"action": "lease_failed", "error": str(error)})
            return None
        return True

    def _is_stale(self, found: Object) -> bool:
        version = found["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = version, self._now()
        lasts: int = found["spec"].get("leaseDurationSeconds", DURATION_S)
        return self._now() - self._seen[1] > lasts

    def _item(self, metadata: Object, spec: Object) -> Object:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = spec.get("holderIdentity") == self._me
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace, "labels": {MANAGED_BY: MANAGER}, **metadata},
            "spec": {
                "holderIdentity": self._me,
                "leaseDurationSeconds": DURATION_S,
                "acquireTime": spec.get("acquireTime", at) if mine else at,
                "renewTime": at,
                "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if mine or not spec else 1),
            },
        }
