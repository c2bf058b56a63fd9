"""The HTTP API of one namespace, until SIGTERM. Any number of replicas may run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from pydantic import Field, SecretStr, model_validator

from perdure._http.application import make_application
from perdure._http.serving import check_exposure, serving
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin, open_admin
from perdure_runtime.announced import Announced, of_topics
from perdure_runtime.pools import Backlog, TopicBacklog, is_of_workers
from perdure_runtime.ports import Ports
from perdure_runtime.service.life import run_service
from perdure_runtime.service.settings import ServiceSettings

log = logging.getLogger("perdure.api")


class ApiSettings(ServiceSettings):
    """Where the API listens, and who may call it."""

    api_host: str = "127.0.0.1"
    """0.0.0.0 in a pod; then a token has to be set."""
    api_port: int = Field(8420, ge=0, le=65_535)
    """0: any free port, which is logged."""
    api_token: SecretStr = SecretStr("")
    """Callers show it as `Authorization: Bearer …`; empty: anybody who reaches the port may call."""

    @model_validator(mode="after")
    def _protected(self) -> ApiSettings:
        check_exposure(self.api_host, self.api_token.get_secret_value())
        return self


async def _serve(ports: Ports, settings: ApiSettings) -> None:
    token = settings.api_token.get_secret_value()
    async with open_admin(settings.pulsar()) as admin:
        looks = Looks(admin, settings.namespace)
        application = make_application(
            ports,
            settings.namespace,
            token=token,
            backlog=backlog(admin, settings.namespace),
            make_pools=looks.make_pools,
            announcements=looks.read,
        )
        async with serving(application, settings.api_host, settings.api_port) as port:
            log.info("listens", extra={"action": "listens", "host": settings.api_host, "port": port})
            await asyncio.Event().wait()


BACKLOG_AGE_S = 2.0
"""One look at the backlogs serves all who ask in this time: each topic costs the broker some milliseconds."""
_QUESTIONS_MAX = 16
"""To the broker at a time: a cluster has a topic for each name, and for each of its builds."""


def backlog(admin: PulsarAdmin, namespace: str) -> Backlog:
    """What waits for workers and what they have, at most BACKLOG_AGE_S ago when the look began."""
    asking = asyncio.Semaphore(_QUESTIONS_MAX)

    async def of(topic: str) -> TopicBacklog:
        async with asking:
            return await admin.of_workers(namespace, topic, "workers")

    async def look() -> Sequence[TopicBacklog]:
        found = [topic for topic in await admin.topics(namespace) if is_of_workers(topic)]
        return await asyncio.gather(*(of(topic) for topic in found))

    return _Shared(look, BACKLOG_AGE_S).read


_T = TypeVar("_T")


class _Shared(Generic[_T]):
    """A look that serves all who ask while it is young, also those who come while it is taken."""

    def __init__(self, look: Callable[[], Awaitable[_T]], age_max_s: float) -> None:
        self._look = look
        self._age_max_s = age_max_s
        self._taken: asyncio.Future[_T] | None = None
        self._until = 0.0

    async def read(self) -> _T:
        """Raises what the look raised: it is taken again for the next who asks."""
        now = asyncio.get_running_loop().time()
        if self._taken is None or (self._taken.done() and (now >= self._until or _failed(self._taken))):
            self._taken = asyncio.ensure_future(self._look())
            self._until = now + self._age_max_s
        return await asyncio.shield(self._taken)


def _failed(taken: asyncio.Future[_T]) -> bool:
    return taken.cancelled() or taken.exception() is not None


LOOK_WAIT_S = 0.5
"""What a start may be late for the look: it is told nothing then."""
LOOK_PAUSE_S = 1.0
"""Between two looks at all topics: their number grows with builds, and each costs the broker some milliseconds."""


class Looks:
    """At the workers that are connected, or were once: a subscription alone tells nothing, since it is also made for
    what waits for a worker. Who makes a pool announces its workers, though there is none now. One look at a time serves
    all who ask, and goes on though they leave."""

    def __init__(self, admin: PulsarAdmin, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace
        self._met: set[str] = set()
        self._look: asyncio.Task[None] | None = None
        self._again_at = 0.0

    async def make_pools(self, pools: Sequence[str]) -> None:
        """As `MakePools`."""
        for topic in pools:
            await self._admin.make(self._namespace, topic)
            self._met.add(topic)

    async def read(self) -> Announced | None:
        """What was found so far; nothing while the first look is on its way, or if it failed."""
        loop = asyncio.get_running_loop()
        if self._look is None or (self._look.done() and loop.time() >= self._again_at):
            self._look = loop.create_task(self._take())
        await asyncio.wait([self._look], timeout=LOOK_WAIT_S)
        if not self._look.done() or self._look.exception() is not None:
            return None
        return of_topics(self._met)

    async def _take(self) -> None:
        try:
            for topic in await self._admin.topics(self._namespace):
                if not is_of_workers(topic) or topic in self._met:
                    continue
                if await self._admin.consumed(self._namespace, topic, "workers"):
                    self._met.add(topic)
        finally:
            self._again_at = asyncio.get_running_loop().time() + LOOK_PAUSE_S


def main() -> None:
    """Entry point."""
    run_service("api", lambda ports, settings: [_serve(ports, settings)], ApiSettings)


if __name__ == "__main__":
    main()
