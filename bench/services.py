"""Measures separate services on a real Pulsar and a real Cassandra and writes build/bench/services.json.

`make bench-services` starts all of them on this machine, one process each, and this client, which speaks HTTP to the
API as any program does. JVMs are warmed up first: compilers take most of the first minute's processor time.
Messages are counted where they are stored, in the topics; commits, and what else is read and written of the tables, by
the node that does it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import machine
import workloads
from composition import Site
from embedded import ROUNDS, at_once, measure_latency, measure_recovery, measure_shapes, show
from rich.console import Console

from perdure import Client
from perdure_runtime.adapters.cassandra import CassandraSettings
from perdure_runtime.adapters.cassandra.connection import connect
from tests.servers import local
from tests.servers.provision import free_port

RESULT = Path("build/bench/services.json")
API_URL = f"http://127.0.0.1:{local.API_PORT}"
ADMIN_URL = "http://127.0.0.1:8080"
WARM_UP_RUNS = 6_000
THROUGHPUT_RUNS = 1_000
COUNTED_RUNS = 500
_COUNTED = "SELECT table_name, count FROM system_views.local_{}_latency WHERE keyspace_name = ?"

TARGETS: dict[str, tuple[str, float]] = {
    "hello_p50_ms": ("<=", 30.0),
    "hello_per_s_at_50": (">=", 150.0),
    "seq100_s": ("<=", 1.5),
    "fan100_s": ("<=", 0.15),
    "cpu_s_per_1000_hello": ("<=", 11.0),
}


class Cluster(Site):
    """What `make up` started, and workers of ours."""

    def __init__(self, client: Client, place: Path) -> None:
        super().__init__(client)
        self._place = place

    async def start_worker(self) -> None:
        """Returns when it takes tasks."""
        port = free_port()
        with (self._place / "bench-worker.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "perdure.cli", "worker", workloads.__file__),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PYTHONHASHSEED": "0", "PERDURE_PROBE_PORT": str(port)},
            )  # fmt: skip
        self.add(child)
        while not await asyncio.to_thread(local.answers, f"http://127.0.0.1:{port}/readyz"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def processes(self) -> dict[str, int]:
        """Process ids by name, the servers' too."""
        return {**started(self._place), "worker": self.workers[-1], "client": os.getpid()}

    def published(self) -> int:
        """Messages in all topics so far."""
        total = 0
        for name in self._get("/admin/v2/persistent/perdure/default"):
            path = name.removeprefix("persistent://")
            total += self._get(f"/admin/v2/persistent/{path}/stats")["msgInCounter"]
        return total

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(ADMIN_URL + path, timeout=30) as answer:
            return json.load(answer)


def started(place: Path) -> dict[str, int]:
    """Process ids by name of what `make up` starts: services and servers, none of them a child of this process."""
    services = {each["role"]: each["pid"] for each in json.loads((place / "running.json").read_text())}
    servers = {name: int((place / name / f"{name}.pid").read_text()) for name in ("pulsar", "cassandra")}
    return {**services, **servers}


async def measure_throughput(cluster: Cluster) -> dict[str, Any]:
    processes = cluster.processes()
    before = {name: machine.cpu_seconds([pid]) for name, pid in processes.items()}
    jit = sum(machine.compiler_seconds(processes[name]) for name in ("pulsar", "cassandra"))
    at_50 = [await at_once(cluster.client, THROUGHPUT_RUNS, 50) for _ in range(ROUNDS)]
    spent = {name: machine.cpu_seconds([pid]) - before[name] for name, pid in processes.items()}
    jit = sum(machine.compiler_seconds(processes[name]) for name in ("pulsar", "cassandra")) - jit
    at_200 = [await at_once(cluster.client, THROUGHPUT_RUNS, 200) for _ in range(ROUNDS)]
    runs = ROUNDS * THROUGHPUT_RUNS
    return {
        "hello_per_s_at_50": statistics.median(at_50),
        "hello_per_s_at_200": statistics.median(at_200),
        "cpu_s_per_1000_hello": sum(spent.values()) / runs * 1000,
        "jit_s_per_1000_hello": jit / runs * 1000,
        "cpu_s_per_1000_hello_by_process": {name: round(s / runs * 1000, 3) for name, s in spent.items()},
        "rss_mb": machine.rss_mb(processes.values()),
    }


async def measure_traffic(cluster: Cluster) -> dict[str, Any]:
    messages, operations = await asyncio.to_thread(cluster.published), await counted_operations()
    await at_once(cluster.client, COUNTED_RUNS, 10)
    messages = await asyncio.to_thread(cluster.published) - messages
    spent = {name: count - operations.get(name, 0) for name, count in (await counted_operations()).items()}
    return {
        "messages_per_hello": messages / COUNTED_RUNS,
        "commits_per_hello": spent["write commits"] / COUNTED_RUNS,
        "store_operations_per_hello": {name: count / COUNTED_RUNS for name, count in spent.items() if count},
    }


async def counted_operations() -> dict[str, int]:
    """What the node has read and written so far, by table. A row that a condition lets pass counts once."""
    settings = CassandraSettings()
    connection = await connect(settings, None)
    try:
        return {
            f"{kind} {table}": count
            for kind in ("read", "write")
            for table, count in await connection.rows(_COUNTED.format(kind), settings.keyspace)
        }
    finally:
        await connection.close()


@asynccontextmanager
async def connected(place: Path) -> AsyncIterator[Cluster]:
    async with Client.connect(API_URL) as client:
        cluster = Cluster(client, place)
        try:
            await cluster.start_worker()
            yield cluster
        finally:
            await cluster.stop_workers()


async def measure() -> dict[str, Any]:
    console = Console(stderr=True)
    async with connected(local.home()) as cluster:
        console.print(f"warm up: {WARM_UP_RUNS} runs")
        await at_once(cluster.client, WARM_UP_RUNS, 50)
        figures: dict[str, Any] = {}
        for step in (
            lambda: measure_latency(cluster.client), lambda: measure_throughput(cluster),
            lambda: measure_shapes(cluster.client), lambda: measure_traffic(cluster),
        ):  # fmt: skip
            found = await step()
            console.print(found)
            figures |= found
        with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
            figures["recovery_s"] = await measure_recovery(cluster, Path(folder))
    return figures


def main() -> int:
    console = Console(stderr=True)
    if local.up(console):
        return 1
    try:
        load, neighbours = machine.load(), machine.Neighbours(started(local.home()).values())
        figures = asyncio.run(measure())
        figures |= {"others_cpu_share": neighbours.share(), "calibration_ms": machine.calibration_ms()}
        figures |= {"machine": machine.description(), "load": load, "load_after": machine.load()}
    finally:
        local.down(console)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures, "services on Pulsar and Cassandra", TARGETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
