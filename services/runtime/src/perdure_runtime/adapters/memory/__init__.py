"""All ports in memory: for tests and for runs that may be forgotten. Nothing survives the process.

Time comes from the clock and from the timers of the running event loop, so a loop with virtual time works.
"""

from __future__ import annotations

from perdure_runtime.adapters.memory.journal import MemoryJournal
from perdure_runtime.adapters.memory.read_model import MemoryReadModel
from perdure_runtime.adapters.memory.records import MemoryBlobs, MemoryRouting, MemoryTasks, MemoryTimers
from perdure_runtime.adapters.memory.store import MemoryStore
from perdure_runtime.adapters.queues import QueueBroker, Queues
from perdure_runtime.ports import Clock, Ports

__all__ = ["memory_ports"]


def memory_ports(clock: Clock) -> Ports:
    """Empty ports. Engines and workers of one process share them."""
    journal = MemoryJournal()
    return Ports(
        clock=clock,
        broker=QueueBroker(Queues(journal), journal),
        store=MemoryStore(clock),
        tasks=MemoryTasks(clock),
        timers=MemoryTimers(),
        read_model=MemoryReadModel(clock),
        blobs=MemoryBlobs(clock),
        routing=MemoryRouting(),
    )
