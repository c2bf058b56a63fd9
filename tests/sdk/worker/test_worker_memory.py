"""The cache of live runs is bounded by what they really weigh, and runs beyond it go on from their histories."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from perdure import Client, channel, workflow
from perdure._client.backend import PortsBackend
from perdure._replay.code import RunContext
from perdure._replay.instance import Instance
from perdure.worker import Worker
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.embedded import Embedded
from perdure_schemas.common import Payload, RunOptions
from perdure_schemas.events import Recorded, Started

SHAPES: dict[str, Any] = {
    "nothing": None,
    "a text": "x" * 100_000,
    "numbers": list(range(20_000)),
    "rows": [{"id": n, "name": f"name {n}", "ok": True} for n in range(3_000)],
    "lists of lists": [[[]]] * 20_000,
    "fractions": [n / 7 for n in range(6_000)],
}


@workflow
async def holds(data: object) -> int:
    await channel("go", int).receive()
    return len(str(data))


def live_run(number: int, data: bytes) -> Instance:
    context = RunContext(namespace="n", workflow_id=f"w-{number}", run_id="r", name="holds", started_at=1)
    instance = Instance(holds.code, context)
    own = Payload("json", bytes(bytearray(data)))
    started = Started(run_id="r", name="holds", args=own, options=RunOptions())
    instance.turn([Recorded(seq=1, at=1, cause="c", event=started)], base=1, generation=0)
    return instance


@pytest.mark.parametrize("shape", SHAPES)
def test_a_live_run_weighs_no_more_than_is_accounted_for(shape: str) -> None:
    data = msgspec.json.encode([SHAPES[shape]])
    live_run(0, data).evict()
    gc.collect()
    tracemalloc.start()
    try:
        runs = [live_run(number, data) for number in range(10)]
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    accounted = sum(run.size_bytes for run in runs)
    for run in runs:
        run.evict()
    assert used <= accounted * 1.25, "with some room for other releases of Python"
    assert accounted <= used * 2, "nor is room given away"


def instances(before: Sequence[Instance] = ()) -> list[Instance]:
    """Those that are there, without garbage of other tests, and without those that were there before."""
    gc.collect()
    known = {id(each) for each in before}
    return [each for each in gc.get_objects() if isinstance(each, Instance) and id(each) not in known]


def test_the_cache_holds_what_it_may_and_all_runs_go_on() -> None:
    runs, kilobytes, cache_bytes = 60, 100, 1_000_000
    alive_max = cache_bytes // (kilobytes * 1000)

    async def work() -> tuple[int, list[int]]:
        ports = memory_ports(SystemClock())
        backend = PortsBackend("default")
        backend.use(ports.broker, ports.read_model, ports.store, blobs=ports.blobs)
        worker = Worker(ports.broker, [holds], cache_bytes=cache_bytes)
        async with asyncio.timeout(60), Embedded(ports, "default"):
            working = asyncio.create_task(worker.run())
            await worker.ready.wait()
            async with Client(backend) as client:
                started = await asyncio.gather(*(client.start(holds, "x" * kilobytes * 1000) for _ in range(runs)))
                for run in started:
                    while not (await run.describe()).waits_for:  # noqa: ASYNC110 - until its first turn is done
                        await asyncio.sleep(0.01)
                while (alive := len(instances(before))) > alive_max:  # noqa: ASYNC110 - the last ones are left just now
                    await asyncio.sleep(0.01)
                await asyncio.gather(*(run.signal("go", 1) for run in started))
                results = await asyncio.gather(*(run.result() for run in started))
            await worker.drain()
            await working
        return alive, results

    before = instances()
    alive, results = asyncio.run(work())
    assert results == [kilobytes * 1000] * runs
    assert alive >= 1
