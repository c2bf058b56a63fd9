"""What tests of bad servers have in common: one of each service and a worker as processes, and servers of their own.

Those servers ask for credentials, may be ended, and lie on file systems whose size can be changed.
"""

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
DISK_BYTES = 512 * 1024 * 1024
"""Of a server's file system: memory, and no more of it than is in use."""


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


class OwnServers:
    """A Pulsar and a Cassandra that ask for credentials, and of which nobody else is using anything."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.key, self.other_key = (hashlib.sha256(name).digest() for name in (b"ours", b"another"))
        """The broker accepts what is signed with the first."""
        self.password = "a-password-of-ours"
        self._ports = {name: free_port() for name in ("pulsar", "pulsar_http", "bookie", "cassandra", "storage")}
        self.cassandra_port = self._ports["cassandra"]
        self._disks: list[Path] = []

    def pulsar(self, key: bytes | None = None) -> Server:
        """Started so that it accepts tokens of this key."""
        key = key or self.key
        conf = {
            "authenticationEnabled": "true",
            "authenticationProviders": "org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
            "tokenSecretKey": f"data:;base64,{base64.b64encode(key).decode()}",
            "brokerClientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth.AuthenticationToken",
            "brokerClientAuthenticationParameters": f"token:{token(key)}",
            "diskCheckInterval": "1000",  # ms: how soon a bookie notices that its disk is full, or has room again
        }
        return Server("pulsar", {
            "PULSAR_PORT": str(self._ports["pulsar"]), "PULSAR_HTTP_PORT": str(self._ports["pulsar_http"]),
            "PULSAR_BK_PORT": str(self._ports["bookie"]), "PULSAR_DATA": str(self.place / "pulsar"),
            "PULSAR_TOKEN": token(key), "PULSAR_CONF_EXTRA": " ".join(f"{name}={conf[name]}" for name in conf),
        })  # fmt: skip

    def cassandra(self) -> Server:
        return Server("cassandra", {
            "CASSANDRA_PORT": str(self.cassandra_port), "CASSANDRA_STORAGE_PORT": str(self._ports["storage"]),
            "CASSANDRA_DATA": str(self.place / "cassandra"), "CASSANDRA_AUTHENTICATOR": "PasswordAuthenticator",
            "CASSANDRA_FAILURE_POLICY": "stop",
        })  # fmt: skip

    def server(self, name: str) -> Server:
        return self.pulsar() if name == "pulsar" else self.cassandra()

    def pulsar_settings(self) -> PulsarSettings:
        url, admin_url = f"pulsar://127.0.0.1:{self._ports['pulsar']}", f"http://127.0.0.1:{self._ports['pulsar_http']}"
        return PulsarSettings(url=url, admin_url=admin_url, token=token(self.key))

    def cassandra_settings(self, username: str = "cassandra", password: str = "cassandra") -> CassandraSettings:
        return CassandraSettings(port=self.cassandra_port, replication=1, username=username, password=password)

    def environment(self) -> dict[str, str]:
        """Of services that work on these."""
        pulsar = self.pulsar_settings()
        return {
            "PERDURE_PULSAR_URL": pulsar.url,
            "PERDURE_PULSAR_ADMIN_URL": pulsar.admin_url,
            "PERDURE_PULSAR_TOKEN": pulsar.token,
            "PERDURE_CASSANDRA_PORT": str(self.cassandra_port),
            "PERDURE_CASSANDRA_USERNAME": "perdure",
            "PERDURE_CASSANDRA_PASSWORD": self.password,
        }

    async def prepare(self, namespace: str) -> None:
        """Tables, the services' role, topics."""
        while True:
            try:
                await migrate(self.cassandra_settings())
                break
            except StorageUnavailable as error:  # the first role is made some time after the port is open
                if "refuses" not in str(error):
                    raise
                await asyncio.sleep(_LOOK_EVERY_S)
        await self.cql(f"CREATE ROLE perdure WITH PASSWORD = '{self.password}' AND LOGIN = true")
        async with open_admin(self.pulsar_settings()) as admin:
            await admin.init(namespace)

    async def cql(self, statement: str) -> None:
        connection = await connect(self.cassandra_settings(), None)
        try:
            await connection.run(statement)
        finally:
            await connection.close()

    # -- disks -------------------------------------------------------------------------------------

    def mount(self, name: str) -> None:
        """A file system of its own for what this server writes.

        Raises:
            OSError: mounting is not allowed to us.
        """
        disk = self.place / name
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "perdure-test", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        self._disks.append(disk)

    def used(self, name: str) -> int:
        """Bytes."""
        found = os.statvfs(self.place / name)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def resize(self, name: str, size: int = 0) -> None:
        """To so many bytes; 0: as it was made."""
        options = f"remount,size={size or DISK_BYTES}"
        subprocess.run(["mount", "-o", options, str(self.place / name)], check=True)

    def unmount(self) -> None:
        for disk in self._disks:
            subprocess.run(["umount", str(disk)], check=True)


def token(key: bytes) -> str:
    """A JWT that a broker with this key accepts."""
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256"}, {"sub": "perdure"})]
    return ".".join([*parts, _base64(hmac.new(key, ".".join(parts).encode(), hashlib.sha256).digest())])


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@asynccontextmanager
async def own_servers(place: Path, namespace: str) -> AsyncIterator[OwnServers]:
    """Their data is gone at the end."""
    own = OwnServers(place)
    servers = [own.pulsar(), own.cassandra()]
    try:
        for name in ("pulsar", "cassandra"):
            own.mount(name)
        for verb in ("install", "start", "wait"):
            await asyncio.gather(*(server.run(verb) for server in servers))
        await own.prepare(namespace)
        yield own
    finally:
        await asyncio.gather(*(server.run("stop") for server in servers))
        own.unmount()
