"""What must not grow: `python bench/scale.py [PART ...]`. Writes build/bench/scale.json; fails when a limit is broken.

Costs per step of a long loop, replay of a long history, a wide fan-out, a busy signal channel, many sleeping runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import workloads
from composition import Bench, running
from rich.console import Console
from rich.table import Table

RESULT = Path("build/bench/scale.json")

STEPS = 10_000
FAN_OUT = 10_000
SIGNALS_PER_SECOND, SIGNAL_SECONDS = 100, 10
SLEEPERS = 10_000
IDLE_SECONDS = 10

LIMITS = {
    "step_cost_ratio": 1.5,
    "replay_10000_events_s": 1.0,
    "signal_lag_s": 1.0,
    "idle_cpu_share": 0.02,  # of one core: the two processes look at their clocks, and nothing else
}


async def step_cost_ratio(bench: Bench) -> dict[str, float]:
    """Time per step over the last tenth of a 10,000-step loop, against the second tenth (the first warms up)."""
    run = await bench.client.start(workloads.sequence, STEPS, id="long-loop")
    marks: dict[int, float] = {}
    wanted = [STEPS // 10, STEPS // 5, STEPS * 9 // 10]
    while wanted:
        described = await run.describe()
        steps = described.version
        while wanted and steps >= wanted[0]:
            marks[wanted.pop(0)] = time.perf_counter()
        await asyncio.sleep(0.02)
    await run.result()
    ended = time.perf_counter()
    early = marks[STEPS // 5] - marks[STEPS // 10]
    late = ended - marks[STEPS * 9 // 10]
    return {"step_cost_ratio": late / early, "step_ms_at_end": late / (STEPS / 10) * 1000}


async def replay(bench: Bench) -> dict[str, float]:
    """A run with 10,000 events loses its worker's instance; the time until it has taken one more step elsewhere."""
    run = await bench.client.start(workloads.Counter, 10_000, id="replayed")
    for start in range(0, 9_999, 500):
        numbers = range(start, min(start + 500, 9_999))
        await asyncio.gather(*[run.signal(workloads.Counter.ticks, 1) for _ in numbers])
    await settled(run)
    os.kill(bench.workers.pop(), signal.SIGKILL)
    await bench.start_worker()
    started = time.perf_counter()
    await run.signal(workloads.Counter.ticks, 1)
    total = await run.result()
    seconds = time.perf_counter() - started
    assert total == 10_000, total
    return {"replay_10000_events_s": seconds}


async def settled(run: object) -> None:
    """Until the run's history has stopped growing."""
    before = None
    while (now := (await run.describe()).version) != before:  # type: ignore[attr-defined]
        before = now
        await asyncio.sleep(0.3)


async def fan_out(bench: Bench) -> dict[str, float]:
    started = time.perf_counter()
    total = await bench.client.execute(workloads.fan, FAN_OUT)
    assert total == FAN_OUT * (FAN_OUT + 1) // 2, total
    return {"fan_10000_s": time.perf_counter() - started}


async def signals(bench: Bench) -> dict[str, float]:
    """100 signals/s to one run: how far behind it is when the last one is sent."""
    count = SIGNALS_PER_SECOND * SIGNAL_SECONDS
    run = await bench.client.start(workloads.Counter, count, id="signaled")
    started = time.perf_counter()
    sent = []
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / SIGNALS_PER_SECOND - time.perf_counter()))
        sent.append(asyncio.ensure_future(run.signal(workloads.Counter.ticks, 1)))
    last = time.perf_counter()
    await asyncio.gather(*sent)
    assert await run.result() == count
    return {"signal_lag_s": time.perf_counter() - last}


async def sleepers(bench: Bench) -> dict[str, float]:
    """Processor time of engine and worker while 10,000 runs sleep, as a share of one core."""
    ids = iter(range(SLEEPERS))

    async def lane() -> None:
        for number in ids:
            await bench.client.start(workloads.sleeper, 86_400.0, id=f"sleeper-{number}")

    started = time.perf_counter()
    await asyncio.gather(*[lane() for _ in range(100)])
    pids = [os.getpid(), *bench.workers]
    busy = True
    while busy:
        before = machine.cpu_seconds(pids)
        await asyncio.sleep(1)
        busy = machine.cpu_seconds(pids) - before > 0.1
    starting = time.perf_counter() - started
    before = machine.cpu_seconds(pids)
    await asyncio.sleep(IDLE_SECONDS)
    share = (machine.cpu_seconds(pids) - before) / IDLE_SECONDS
    return {"idle_cpu_share": share, "sleepers_started_s": starting, "sleepers_rss_mb": machine.rss_mb(pids)}


PARTS = {part.__name__: part for part in (step_cost_ratio, replay, fan_out, signals, sleepers)}


async def measure(folder: Path, parts: Sequence[str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in parts:
        async with running(folder / f"{name}.sqlite") as bench:
            found = await PARTS[name](bench)
            Console().print(name, found)
            figures |= found
    return figures


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="perdure-scale-") as folder:
        figures = asyncio.run(measure(Path(folder), sys.argv[1:] or list(PARTS)))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        json.dumps({**figures, "machine": machine.description(), "load": machine.load()}, indent=2) + "\n"
    )
    table = Table("measure", "value", "limit", title="what must not grow", title_justify="left")
    missing = (
        LIMITS.keys() - figures.keys() if not sys.argv[1:] else set()
    )  # of parts that were asked for, some suffice
    broken = [key for key, limit in LIMITS.items() if key in missing or figures.get(key, 0.0) > limit]
    for key, value in figures.items():
        colour = "[red]" if key in broken else ("[green]" if key in LIMITS else "")
        table.add_row(key, f"{colour}{value:.4g}", f"<= {LIMITS[key]:g}" if key in LIMITS else "")
    Console().print(table)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
