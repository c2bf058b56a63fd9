"""What several processes of one cluster have: connections of their own to the session's real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from perdure_runtime.adapters.cassandra import open_cassandra
from perdure_runtime.adapters.pulsar import PulsarBroker, PulsarSettings
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Ports
from tests.servers import clean

NAMESPACE = "default"
_AS_OPENED: Mapping[str, str] = {}
LONG = bool(os.environ.get("PERDURE_TEST_LONG"))
"""Sizes as they are promised, which take minutes and a quiet machine (`make figures`); else a tenth or less."""


@asynccontextmanager
async def replicas(count: int, settings: PulsarSettings | None = None) -> AsyncIterator[Sequence[Ports]]:
    """Ports for so many processes: one tenant, one keyspace whose tables are empty."""
    settings = settings or clean.pulsar_settings()
    async with (
        clean.cassandra(),
        clean.pulsar_broker([NAMESPACE], settings),
        reopened(count, settings) as opened,
    ):
        yield opened


@asynccontextmanager
async def reopened(count: int, settings: PulsarSettings) -> AsyncIterator[Sequence[Ports]]:
    """Ports for so many processes that find what others left there."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        opened: list[Ports] = []
        for _ in range(count):
            broker = PulsarBroker(settings)
            stack.push_async_callback(broker.close)
            stores = await stack.enter_async_context(open_cassandra(clean.cassandra_settings(clean.keyspace()), clock))
            opened.append(stores.beside(broker, clock))
        yield opened


@contextmanager
def service(
    role: str, settings: PulsarSettings, log: Path, number: int = 0, *, given: Mapping[str, str] = _AS_OPENED
) -> Iterator[subprocess.Popen[bytes]]:
    """A service as it is deployed, in a process of its own on what `replicas` opened; killed in the end.

    Args:
        role: of the service, as in the name of its package.
        settings: where its topics are.
        log: what it writes, appended.
        number: of this replica.
        given: environment variables that differ from those.
    """
    found = clean.real_servers()
    environment = {
        **os.environ,
        "PERDURE_INSTANCE": f"{role}-{number}",
        "PERDURE_PROBE_PORT": "0",
        "PERDURE_PULSAR_URL": settings.url,
        "PERDURE_PULSAR_ADMIN_URL": settings.admin_url,
        "PERDURE_PULSAR_TENANT": settings.tenant,
        "PERDURE_CASSANDRA_PORT": str(found.cassandra_port),
        "PERDURE_CASSANDRA_KEYSPACE": clean.keyspace(),
        "PERDURE_CASSANDRA_REPLICATION": "1",
        **given,
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", f"perdure_{role}"], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def frozen(process: subprocess.Popen[bytes], seconds: float) -> AsyncIterator[None]:
    """It neither runs nor ends meanwhile, and knows nothing of it afterwards; at least so many seconds."""
    process.send_signal(signal.SIGSTOP)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            pause = asyncio.create_task(asyncio.sleep(seconds))
            yield
            await pause
    finally:
        process.send_signal(signal.SIGCONT)
