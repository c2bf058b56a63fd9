"""The HTTP API of one namespace, until SIGTERM. Any number of replicas may run."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from pydantic import Field, SecretStr, model_validator

from perdure._http.application import Backlog, make_application
from perdure._http.serving import check_exposure, serving
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin, open_admin
from perdure_runtime.announced import Announced, Announcements, of_topics
from perdure_runtime.ports import Ports
from perdure_runtime.service.life import run_service
from perdure_runtime.service.settings import ServiceSettings
from perdure_schemas import topics

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
        application = make_application(
            ports,
            settings.namespace,
            token=token,
            backlog=_backlog(admin, settings.namespace),
            announcements=announcements(admin, settings.namespace),
        )
        async with serving(application, settings.api_host, settings.api_port) as port:
            log.info("listens", extra={"action": "listens", "host": settings.api_host, "port": port})
            await asyncio.Event().wait()


def _backlog(admin: PulsarAdmin, namespace: str) -> Backlog:
    """Per topic of workers: what waits."""

    async def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for topic in await admin.topics(namespace):
            kind, _, rest = topic.partition(".")
            if f"{kind}." in (topics.workflow_run(""), topics.task_run("")):
                waiting = await admin.backlog(namespace, topic, "workers")
                found.append({"kind": kind.removesuffix("-run"), "topic": topic, "name": rest, "waiting": waiting})
        return found

    return read


LOOK_WAIT_S = 0.5
"""What a start may be late for the look: it is told nothing then."""
LOOK_PAUSE_S = 1.0
"""Between two looks at all topics: their number grows with builds, and each costs the broker some milliseconds."""


def announcements(admin: PulsarAdmin, namespace: str) -> Announcements:
    """What the looks at the topics have found; nothing while the first one is on its way, or if it failed."""
    looks = _Looks(admin, namespace)
    return looks.read


class _Looks:
    """At the workers that are connected, or were once: a subscription alone tells nothing, since it is also made for
    what waits for a worker. One look at a time serves all who ask, and goes on though they leave."""

    def __init__(self, admin: PulsarAdmin, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace
        self._met: set[str] = set()
        self._look: asyncio.Task[None] | None = None
        self._again_at = 0.0

    async def read(self) -> Announced | None:
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
                of_workers = topic.startswith((topics.workflow_run(""), topics.task_run("")))
                if not of_workers or topic in self._met:
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
