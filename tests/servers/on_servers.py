"""The same tests and programs, unchanged, on real servers with two replicas of each engine.

    python -m pytest -p tests.servers.on_servers tests/sdk
    python -m tests.servers.on_servers examples/hello.py

`World` and `Client.embedded` open their engines on the session's Pulsar and Cassandra instead of in memory or a file.
What opens neither (replay without engines, doubles, the virtual clock of WorkflowEnvironment) runs as it always does,
and is not counted.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pulsar
import pytest

from perdure._client.embedded import EmbeddedBackend
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.adapters.pulsar.names import address
from perdure_runtime.embedded import Embedded
from perdure_runtime.ports import Ports
from tests.sdk.semantics.world import World
from tests.servers import clean, provision
from tests.servers.replicas import NAMESPACE, reopened, replicas

REPLICAS = 2
PATIENCE_SECONDS = 60
_TIMEOUT_S = 300
opened: set[str] = set()
"""Tests that ran on real servers, by the id of each."""
_files: dict[str, PulsarSettings] = {}
"""By database file: the tenant that stands for it, and keeps what is in it."""
_current = ""


class RealServers:
    patience_seconds = PATIENCE_SECONDS
    pause_seconds = 0.3

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Sequence[Ports]]:
        opened.add(_current)
        self._settings = clean.pulsar_settings()
        async with replicas(REPLICAS, self._settings) as found:
            yield found

    async def publish_bytes(self, ports: Ports, topic: str, key: str, data: bytes) -> None:
        await asyncio.to_thread(_send, self._settings, topic, key, data)


def _send(settings: PulsarSettings, topic: str, key: str, data: bytes) -> None:
    client = pulsar.Client(settings.url)
    try:
        client.create_producer(address(settings.tenant, NAMESPACE, topic)).send(data, partition_key=key)
    finally:
        client.close()


async def _ports(backend: EmbeddedBackend, stack: AsyncExitStack) -> Ports:
    """In place of EmbeddedBackend._ports: those of the first replica; the others run already."""
    opened.add(_current)
    file = str(backend._db)
    known = _files.get(file)
    if file == ":memory:" or known is None:
        settings = _files[file] = clean.pulsar_settings()
        found = await stack.enter_async_context(replicas(REPLICAS, settings))
    else:
        found = await stack.enter_async_context(reopened(REPLICAS, known))
    for number, ports in enumerate(found[1:], 1):
        await stack.enter_async_context(Embedded(ports, backend.namespace, owner=f"embedded-{number}"))
    return found[0]


def use_servers() -> None:
    """From now on, in this process."""
    World.place = RealServers()
    setattr(EmbeddedBackend, "_ports", _ports)  # noqa: B010  a method of the test's own


def pytest_configure() -> None:
    use_servers()


def pytest_sessionstart() -> None:
    provision.servers()  # now: what they need to start is no test's


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


def pytest_runtest_setup(item: pytest.Item) -> None:
    global _current
    _current = item.nodeid


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = {report.nodeid for report in terminalreporter.stats.get("passed", ()) if report.when == "call"}
    terminalreporter.write_line(f"{len(passed & opened)} of {len(opened)} tests on real servers passed")


def main() -> None:
    """Run a program."""
    use_servers()
    mine = provision.prepare()
    try:
        runpy.run_path(sys.argv[1], run_name="__main__")
    finally:
        if mine:
            provision.stop()


if __name__ == "__main__":
    main()
