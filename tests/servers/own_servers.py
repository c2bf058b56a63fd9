"""A Pulsar and a Cassandra of a test's own: they ask for credentials, may be ended, and their disks change in size."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from perdure_runtime.adapters.cassandra import CassandraSettings, migrate
from perdure_runtime.adapters.cassandra.connection import connect
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.adapters.pulsar.admin import open_admin
from perdure_runtime.errors import StorageUnavailable
from tests.chaos.processes import Server
from tests.servers.provision import free_port

DISK_BYTES = 512 * 1024 * 1024
"""Of a server's file system: memory, and no more of it than is in use."""
_AGAIN_S = 0.1
_PATIENCE_S = 180.0


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
        self.no_disks = ""
        """Why the size of disks cannot be changed; empty: it can."""

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
        await self._patiently(lambda: migrate(self.cassandra_settings()))
        await self.cql(f"CREATE ROLE IF NOT EXISTS perdure WITH PASSWORD = '{self.password}' AND LOGIN = true")
        async with open_admin(self.pulsar_settings()) as admin:
            await admin.init(namespace)

    async def cql(self, statement: str) -> None:
        """One that may be repeated, as the superuser."""

        async def run() -> None:
            connection = await connect(self.cassandra_settings(), None)
            try:
                await connection.run(statement)
            finally:
                await connection.close()

        await self._patiently(run)

    async def _patiently(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """A node that has just started answers slowly, and makes its first role some time after its port is open."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    await attempt()
                    return
                except StorageUnavailable:
                    await asyncio.sleep(_AGAIN_S)

    # -- disks -------------------------------------------------------------------------------------

    def mount(self, name: str) -> None:
        """A file system of its own for what this server writes, where we may mount one."""
        disk = self.place / name
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "perdure-test", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.no_disks = f"tests of full disks need the right to mount one: {done.stderr.strip()}"
        else:
            self._disks.append(disk)

    def used(self, name: str) -> int:
        """Bytes."""
        found = os.statvfs(self.place / name)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def resize(self, name: str, size: int = 0) -> None:
        """To so many bytes; 0: as it was made. Nothing where there is no disk of ours."""
        if self.no_disks:
            return
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
