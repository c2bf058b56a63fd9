"""The ports of a cluster: Pulsar and Cassandra, as one composition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from perdure_runtime.adapters.cassandra import open_cassandra
from perdure_runtime.adapters.pulsar import PulsarBroker
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Ports
from perdure_runtime.service.metering import MeteredBroker, Progress
from perdure_runtime.service.patience import patiently
from perdure_runtime.service.settings import ServiceSettings


@asynccontextmanager
async def open_cluster(settings: ServiceSettings, progress: Progress) -> AsyncIterator[Ports]:
    """Connect to both, and wait for whichever is away, refuses us, or lacks this release's tables."""
    clock = SystemClock()
    broker = PulsarBroker(settings.pulsar())
    async with AsyncExitStack() as opened:
        opened.push_async_callback(broker.close)
        stores = await patiently(
            "use Cassandra", lambda: opened.enter_async_context(open_cassandra(settings.cassandra(), clock))
        )
        yield stores.beside(MeteredBroker(broker, progress), clock)
