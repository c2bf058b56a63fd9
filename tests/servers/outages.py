"""What tests of bad servers have in common: one of each service and a worker, as processes that nobody restarts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from perdure import Client
from perdure.errors import AlreadyStarted, Unavailable
from tests.chaos import app
from tests.chaos.processes import Member
from tests.servers.provision import free_port

SERVICES = ("workflow_engine", "task_engine", "timer", "projector", "api")
ROLES = (*SERVICES, "worker")
PATIENCE_S = 180.0
"""No figure: until a condition holds on a machine that does much else."""
_LOOK_EVERY_S = 0.05


async def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Raises TimeoutError with what did not happen."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(_LOOK_EVERY_S)


class Cluster:
    """One process of each role; nobody starts again what ends."""

    def __init__(self, place: Path, environment: Mapping[str, str], namespace: str, roles: tuple[str, ...]) -> None:
        self.place = place
        self.namespace = namespace
        self.effects = place / "effects"
        self.effects.touch()
        self._api = free_port()
        self.members = {role: self._member(role, environment) for role in roles}

    def _member(self, role: str, environment: Mapping[str, str]) -> Member:
        own = {
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PERDURE_INSTANCE": role,
            "PERDURE_NAMESPACE": self.namespace,
            "PERDURE_PROBE_PORT": "0",
            "PERDURE_API_PORT": str(self._api),
            "CHAOS_EFFECTS": str(self.effects),
            **environment,
        }
        command = ["-m", "perdure.cli", "worker", app.__file__] if role == "worker" else ["-m", f"perdure_{role}"]
        return Member(role, [sys.executable, *command], own, self.place / f"{role}.log")

    @contextmanager
    def started(self) -> Iterator[None]:
        """Killed in the end."""
        try:
            for member in self.members.values():
                member.start()
            yield
        finally:
            for member in self.members.values():
                member.kill()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client.connect(f"http://127.0.0.1:{self._api}", namespace=self.namespace) as client:
            yield client

    async def works(self, workflow_id: str, patience_s: float = PATIENCE_S) -> float:
        """Seconds until a run that is started now, and asked for until it is answered, has ended."""
        began = time.monotonic()
        async with self.client() as client, asyncio.timeout(patience_s):
            while True:
                try:
                    await client.execute("hello", 1, id=workflow_id, conflict="use-existing", reuse="never")
                    break
                except AlreadyStarted:  # it has ended, and whoever asked did not hear of it
                    break
                except Unavailable:
                    await asyncio.sleep(_LOOK_EVERY_S)
        return time.monotonic() - began

    # -- what they tell ----------------------------------------------------------------------------

    def text(self, role: str) -> str:
        log = self.place / f"{role}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def lines(self, role: str) -> list[dict[str, Any]]:
        """But for those of Pulsar's library, which are no JSON."""
        whole = self.text(role).rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def reasons(self, role: str) -> list[str]:
        """What its lines say to be wrong, in their order."""
        return [str(line["error"]) for line in self.lines(role) if line.get("error")]

    def all_told(self, *words: str, roles: tuple[str, ...] = ()) -> bool:
        """Whether each of them has one line that says all of this."""
        return all(
            any(all(word in reason for word in words) for reason in self.reasons(role))
            for role in roles or tuple(self.members)
        )

    async def probe(self, role: str, path: str) -> tuple[int, list[str]]:
        """Status, and what it has against itself."""
        await until(lambda: bool(self._probes(role)), f"{role} serves its probes")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self._probes(role)}{path}") as answer,
        ):
            return answer.status, (await answer.json())["problems"]

    def _probes(self, role: str) -> int:
        return next((int(line["port"]) for line in self.lines(role) if line.get("action") == "probes"), 0)

    async def check_health(self) -> None:
        """No restart would help any of them, and none has ended."""
        for role, member in self.members.items():
            assert member.alive, f"{role} ended: {self.text(role)[-2_000:]}"
            assert await self.probe(role, "/healthz") == (200, []), role

    async def ready(self, patience_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(patience_s):
            for role in self.members:
                while (await self.probe(role, "/readyz"))[0] != 200:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_EVERY_S)

    def check_words(self, *secrets: str) -> None:
        """No traceback, for what an outage raises is foreseen, and no secret."""
        for role in self.members:
            text = self.text(role)
            assert "Traceback" not in text, f"{role}: {text[max(0, text.index('Traceback') - 500) :][:3_000]}"
            for secret in secrets:
                assert secret not in text, f"{role} told a secret"
