"""A cluster of local processes, each of which can be killed, stopped and cut off by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from perdure_runtime.adapters.cassandra import CassandraSettings, migrate
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.adapters.pulsar.admin import open_admin
from tests.chaos import app
from tests.chaos.broken import role_of
from tests.chaos.processes import Cut, Member, Server
from tests.servers.provision import free_port

REPLICATED = ("workflow_engine", "task_engine", "timer", "projector", "worker")
REPLICAS = 2
NAMES = tuple(f"{role}-{number}" for role in REPLICATED for number in range(REPLICAS))
SUPERVISED_EVERY_S = 1.0
API_PORT_ENV = "PERDURE_API_PORT"


class Stack:
    """Servers, services, workers and the API, with all that can be done to them."""

    def __init__(self, place: Path, tell: Callable[[str], None]) -> None:
        self.place = place
        self.namespace = ""
        """What was deployed last: each deployment has one of its own, and so begins with nothing."""
        self.members: dict[str, Member] = {}
        self.servers: dict[str, Server] = {}
        self.deaths: Counter[str] = Counter()
        """Of processes that ended by themselves; they are started again, as any cluster does."""
        self._tell = tell
        self._cuts: dict[str, dict[str, Cut]] = {}
        self._ports = {name: free_port() for name in ("pulsar", "pulsar_http", "bookie", "cassandra", "storage", "api")}

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def effects(self) -> Path:
        """Where tasks leave their marks."""
        return self.place / f"effects-{self.namespace}.log"

    def pulsar(self) -> PulsarSettings:
        ports = self._ports
        return PulsarSettings(
            url=f"pulsar://127.0.0.1:{ports['pulsar']}", admin_url=f"http://127.0.0.1:{ports['pulsar_http']}"
        )

    def cassandra(self) -> CassandraSettings:
        return CassandraSettings(port=self._ports["cassandra"], replication=1)

    async def start(self) -> None:
        """The servers; `deploy` starts what works on them."""
        for name in NAMES:
            self._cuts[name] = {server: Cut(self._ports[server], free_port()) for server in ("pulsar", "cassandra")}
        listeners = ",".join(
            f"{_listener(name)}:pulsar://127.0.0.1:{cuts['pulsar'].port}" for name, cuts in self._cuts.items()
        )
        self.servers = {
            "pulsar": Server("pulsar", {
                "PULSAR_PORT": str(self._ports["pulsar"]), "PULSAR_HTTP_PORT": str(self._ports["pulsar_http"]),
                "PULSAR_BK_PORT": str(self._ports["bookie"]), "PULSAR_DATA": str(self.place / "pulsar"),
                "PULSAR_LISTENERS": listeners,
            }),
            "cassandra": Server("cassandra", {
                "CASSANDRA_PORT": str(self._ports["cassandra"]), "CASSANDRA_STORAGE_PORT": str(self._ports["storage"]),
                "CASSANDRA_DATA": str(self.place / "cassandra"),
            }),
        }  # fmt: skip
        for verb in ("install", "start", "wait"):
            await asyncio.gather(*(server.run(verb) for server in self.servers.values()))
        for cuts in self._cuts.values():
            for cut in cuts.values():
                await cut.open()
        await migrate(self.cassandra())
        self._tell("servers are up")

    async def deploy(self, namespace: str, mutations: Sequence[str] = ()) -> None:
        """Services, workers and API of a namespace of their own, in place of those of the last; some of them broken."""
        for member in self.members.values():
            member.kill()
        self.namespace = namespace
        self.effects.touch()
        async with open_admin(self.pulsar()) as admin:
            await admin.init(namespace)
        self.members = {name: self._replica(name, mutations) for name in NAMES} | {"api": self._api()}
        for member in self.members.values():
            member.start()

    def _replica(self, name: str, mutations: Sequence[str]) -> Member:
        cuts, role = self._cuts[name], name.rsplit("-", 1)[0]
        environment = self._environment(name) | {
            "PERDURE_PULSAR_URL": f"pulsar://127.0.0.1:{cuts['pulsar'].port}",
            "PERDURE_PULSAR_LISTENER": _listener(name),
            "PERDURE_CASSANDRA_PORT": str(cuts["cassandra"].port),
        }
        broken = [mutation for mutation in mutations if role_of(mutation) == role]
        if role == "worker":
            command = ["-m", "perdure.cli", "worker", app.__file__]
        elif broken:
            command = ["-m", "tests.chaos.broken", f"perdure_{role}", *broken]
        else:
            command = ["-m", f"perdure_{role}"]
        member = Member(name, [sys.executable, *command], environment, self.place / f"{name}.log")
        member.cuts = {"pulsar": cuts["pulsar"]} if role == "worker" else cuts
        return member

    def _api(self) -> Member:
        environment = self._environment("api") | {
            "PERDURE_PULSAR_URL": self.pulsar().url,
            "PERDURE_CASSANDRA_PORT": str(self._ports["cassandra"]),
            API_PORT_ENV: str(self._ports["api"]),
        }
        return Member("api", [sys.executable, "-m", "perdure_api"], environment, self.place / "api.log")

    def _environment(self, name: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PERDURE_INSTANCE": name,
            "PERDURE_NAMESPACE": self.namespace,
            "PERDURE_PROBE_PORT": "0",
            "PERDURE_CASSANDRA_REPLICATION": "1",
            "PERDURE_PULSAR_ADMIN_URL": self.pulsar().admin_url,
            "CHAOS_EFFECTS": str(self.effects),
        }

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Meanwhile, what ends by itself is started again."""
        supervisor = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            supervisor.cancel()

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(SUPERVISED_EVERY_S)
            for member in self.members.values():
                if not member.down and not member.alive:
                    self.deaths[member.name] += 1
                    self._tell(f"{member.name} ended by itself")
                    member.start()

    def heal(self) -> None:
        """Undo every fault that lasts: thaw, mend, start what is dead."""
        for server in self.servers.values():
            server.thaw()
        for member in self.members.values():
            member.thaw()
            for cut in member.cuts.values():
                if cut.severed:
                    cut.mend()
            member.start()

    async def stop(self) -> None:
        for server in self.servers.values():
            server.thaw()
        for member in self.members.values():
            member.kill()
        for cuts in self._cuts.values():
            for cut in cuts.values():
                await cut.close()
        await asyncio.gather(*(server.run("stop") for server in self.servers.values()))

    def clean(self) -> None:
        for name in ("pulsar", "cassandra"):
            shutil.rmtree(self.place / name, ignore_errors=True)


def _listener(name: str) -> str:
    return name.replace("_", "-")


@asynccontextmanager
async def servers_of_its_own(place: Path, tell: Callable[[str], None]) -> AsyncIterator[Stack]:
    """Servers that may be killed: those that other tests share may not. Their data is gone at the end, logs are not."""
    stack = Stack(place, tell)
    try:
        await stack.start()
        yield stack
    finally:
        await stack.stop()
        stack.clean()
