"""Measures the embedded engine and writes build/bench/embedded.json: `make bench`.

The engine (SQLite, synchronous=NORMAL) and the client share this process; the worker is a process of its own on the
other end of a unix socket. Every number is the median of several rounds after a warm-up. What other processes took of
the machine meanwhile is measured too: on a busy machine only processor time per run can be compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import machine
import workloads
from composition import Bench, Site, ready_dev, running
from rich.console import Console
from rich.table import Table

from perdure import Client

RESULT = Path("build/bench/embedded.json")
ROUNDS = 5
WARM_UP_RUNS = 300
LATENCY_RUNS = 200
THROUGHPUT_RUNS = 1_000

TARGETS: dict[str, tuple[str, float]] = {
    "hello_p50_ms": ("<=", 4.0),
    "hello_per_s_at_50": (">=", 800.0),
    "seq100_s": ("<=", 0.2),
    "fan100_s": ("<=", 0.08),
    "cold_start_s": ("<=", 2.5),
}


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def hello(client: Client, number: int = 1) -> None:
    result = await client.execute(workloads.hello, number)
    assert result == number + 1, result


async def at_once(client: Client, runs: int, in_flight: int) -> float:
    """HELLOs per second with so many in flight."""
    numbers = iter(range(runs))

    async def one_after_another() -> None:
        for number in numbers:
            await hello(client, number)

    async def all_lanes() -> None:
        await asyncio.gather(*[one_after_another() for _ in range(in_flight)])

    return runs / await timed(all_lanes)


async def median_seconds(work: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> float:
    return statistics.median([await timed(work) for _ in range(rounds)])


async def measure_latency(client: Client) -> dict[str, float]:
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(sorted([await timed(lambda: hello(client)) for _ in range(LATENCY_RUNS)]))
    return {
        "hello_p50_ms": 1000 * statistics.median(times[len(times) // 2] for times in rounds),
        "hello_p99_ms": 1000 * statistics.median(times[len(times) * 99 // 100] for times in rounds),
    }


async def measure_throughput(bench: Bench) -> dict[str, float]:
    pids = [os.getpid(), *bench.workers]
    before = machine.cpu_seconds(pids)
    at_50 = [await at_once(bench.client, THROUGHPUT_RUNS, 50) for _ in range(ROUNDS)]
    spent = machine.cpu_seconds(pids) - before
    at_200 = [await at_once(bench.client, THROUGHPUT_RUNS, 200) for _ in range(ROUNDS)]
    return {
        "hello_per_s_at_50": statistics.median(at_50),
        "hello_per_s_at_200": statistics.median(at_200),
        "cpu_s_per_1000_hello": spent / (ROUNDS * THROUGHPUT_RUNS) * 1000,
        "rss_mb": machine.rss_mb(pids),
    }


async def measure_shapes(client: Client) -> dict[str, float]:
    return {
        "seq10_ms": 1000 * await median_seconds(lambda: client.execute(workloads.sequence, 10)),
        "seq100_s": await median_seconds(lambda: client.execute(workloads.sequence, 100)),
        "fan100_s": await median_seconds(lambda: client.execute(workloads.fan, 100)),
    }


async def measure_recovery(site: Site, folder: Path) -> float:
    """From the death of the worker that runs a task until the run's result, the task being done by another."""
    rounds = []
    for number in range(3):
        await site.start_worker()
        marker = folder / f"interrupted-{number}"
        run = await site.client.start(workloads.recovery, str(marker))
        await asyncio.to_thread(wait_for_file, marker)
        victim = int(marker.read_text())
        killed = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        answered_by = await run.result(timeout=60)
        rounds.append(time.perf_counter() - killed)
        assert answered_by != victim
        site.workers.remove(victim)
    return statistics.median(rounds)


def wait_for_file(path: Path) -> None:
    """Another process makes it."""
    while not path.exists():
        time.sleep(0.002)


async def measure_cold_start(folder: Path) -> float:
    """From nothing (no process, no file) to the first HELLO's result, by `perdure dev` and a client on its socket."""
    rounds = []
    for number in range(3):
        database = folder / f"cold-{number}.sqlite"
        started = time.perf_counter()
        async with ready_dev(database), Client.connect(database) as client:
            await hello(client)
            rounds.append(time.perf_counter() - started)
    return statistics.median(rounds)


async def measure(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {"cold_start_s": await measure_cold_start(folder)}
    async with running(folder / "bench.sqlite") as bench:
        await at_once(bench.client, WARM_UP_RUNS, 10)
        figures |= await measure_latency(bench.client)
        figures |= await measure_throughput(bench)
        figures |= await measure_shapes(bench.client)
        figures["recovery_s"] = await measure_recovery(bench, folder)
    return figures


def met(key: str, value: float, targets: dict[str, tuple[str, float]]) -> bool | None:
    if key not in targets:
        return None
    relation, limit = targets[key]
    return value <= limit if relation == "<=" else value >= limit


def show(figures: dict[str, Any], title: str, targets: dict[str, tuple[str, float]]) -> None:
    table = Table("measure", "value", "target", title=title, title_justify="left")
    for key, value in figures.items():
        if not isinstance(value, float):
            continue
        verdict = met(key, value, targets)
        colour = {None: "", True: "[green]", False: "[red]"}[verdict]
        table.add_row(key, f"{colour}{value:.4g}", "{} {:g}".format(*targets[key]) if key in targets else "")
    console = Console()
    console.print(table)
    console.print(f"{figures['machine']}; load {figures['load']} before, {figures['load_after']} after")


def main() -> int:
    load, neighbours = machine.load(), machine.Neighbours()
    calibration = [machine.calibration_ms()]
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        figures = asyncio.run(measure(Path(folder)))
    calibration.append(machine.calibration_ms())
    figures |= {"others_cpu_share": neighbours.share(), "calibration_ms": statistics.mean(calibration)}
    figures |= {"machine": machine.description(), "load": load, "load_after": machine.load()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures, "embedded engine", TARGETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
