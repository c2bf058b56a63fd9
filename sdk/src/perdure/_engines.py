"""Engines in other processes, as programs name them: the file of a `perdure dev`, or the brokers of a cluster."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perdure._extras import needed
from perdure._payloads.blobs import Blobs, StoreBlobs
from perdure._targets import scheme_of
from perdure.cli.locations import TOKEN, api_url, socket_path
from perdure.errors import NamespaceNotServed, PerdureError, Unavailable
from perdure_runtime.adapters.socket import SocketClient, connect
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Broker

if TYPE_CHECKING:
    from perdure_runtime.adapters.pulsar import PulsarBroker

_PULSAR = frozenset({"pulsar", "pulsar+ssl"})


async def engine_of(path: Path, namespace: str) -> SocketClient:
    """The engine of a `perdure dev` on this machine, by the path of its database or of its socket (`.sock`).

    Raises:
        Unavailable: there is none.
        NamespaceNotServed: it serves others.
    """
    try:
        engine = await connect(path if path.suffix == ".sock" else socket_path(path))
    except (OSError, StorageUnavailable) as error:
        raise Unavailable(f"{error}. Is `perdure dev` running?") from error
    if engine.namespaces and namespace not in engine.namespaces:
        await engine.close()
        names = ", ".join(map(repr, engine.namespaces))
        text = f"the engine at {path} serves namespace {names}, not {namespace!r}"
        raise NamespaceNotServed(text, served=engine.namespaces)
    return engine


@dataclass(frozen=True, slots=True)
class Engine:
    """What a worker has of its engines."""

    broker: Broker
    blobs: Blobs | None
    """Where large values are; nothing if that was not told."""


class Elsewhere:
    """Engines in other processes, to be opened on the loop that uses them."""

    def __init__(self, target: str | Path, namespace: str) -> None:
        """Raises ValueError: a URL of another scheme."""
        if scheme_of(target) not in {"", *_PULSAR}:
            raise ValueError(f"unknown scheme in {target!r}: a worker connects to pulsar://…, or a file")
        self._target = target
        self._namespace = namespace

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Engine]:
        """The engine, for as long as it is needed.

        Raises:
            Unavailable: nobody is there.
            NamespaceNotServed: the engine serves others.
            NotInstalled: a cluster needs the extra `cluster`.
            PerdureError: a setting of the cluster is wrong.
        """
        if scheme_of(self._target) in _PULSAR:
            broker = _pulsar(str(self._target), self._namespace)
            try:
                async with blobs_by_api(api_url(), self._namespace, os.environ.get(TOKEN, "")) as blobs:
                    yield Engine(broker, blobs)
            finally:
                await broker.close()
        else:
            engine = await engine_of(Path(self._target), self._namespace)
            try:
                yield Engine(engine.broker, StoreBlobs(engine.blobs, self._namespace))
            finally:
                await engine.close()


def _pulsar(url: str, namespace: str) -> PulsarBroker:
    """Tenant, credentials and TLS are those of the environment, as for `perdure worker`."""
    with needed("cluster", "a worker of a cluster"):
        from pydantic import ValidationError

        from perdure_runtime.adapters.pulsar import PulsarBroker
        from perdure_runtime.service.settings import BrokerSettings, mistakes
    try:
        settings = BrokerSettings.model_validate({"pulsar_url": url, "namespace": namespace})
    except ValidationError as error:
        raise PerdureError("; ".join(mistakes(error))) from None
    return PulsarBroker(settings.pulsar())


@asynccontextmanager
async def blobs_by_api(url: str, namespace: str, token: str) -> AsyncIterator[Blobs | None]:
    """Where a worker of a cluster has its large values: with the API, which alone has a way to the store.

    Args:
        url: of the API; empty: nowhere.
        token: what it asks callers to show.

    Raises:
        NotInstalled: the extra `cluster` is missing.
    """
    if not url:
        yield None
        return
    with needed("cluster", "large values of a cluster"):
        from perdure._http.blobs import HttpBlobs
        from perdure._http.caller import Caller
    caller = Caller(url, namespace, token)
    caller.open("worker")
    try:
        yield HttpBlobs(caller)
    finally:
        await caller.close()
