"""Measures ways to commit a turn on a real Cassandra and writes build/bench/commits.json: what ADR 0016 rests on.

`make bench-commits` starts a Cassandra per variant of Paxos, on ports of its own, and ends it. Each way stores the
same kilobyte per turn; of a group, ten turns of one shard go into one conditional batch. Times are those of a turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import machine
from rich.console import Console
from rich.table import Table

from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from tests.servers.provision import SCRIPTS, free_port

RESULT = Path("build/bench/commits.json")
DATA = os.urandom(1024)
GROUP = 10
"""Turns in one batch: about what arrives within the 20 ms that a shard of a busy replica would wait."""
WARM_UP = 3_000
ALONE, CROWD, IN_FLIGHT = 500, 3_000, 50
TABLE = """
    CREATE TABLE IF NOT EXISTS turns (
        id text, seq bigint, version bigint static, head text static, data blob, PRIMARY KEY (id, seq)
    )
"""
ROW = "INSERT INTO turns (id, seq, data) VALUES (?, ?, ?)"
HEAD = "UPDATE turns SET version = ?, head = ? WHERE id = ? IF version = ?"
UPDATE = "UPDATE turns SET version = ?, head = ?, data = ? WHERE id = ? AND seq = ? IF version = ?"
PLAIN = "UPDATE turns SET version = ?, head = ?, data = ? WHERE id = ? AND seq = ?"
TURNS_PER_ID = 4
"""Commits of a run: its partition stays as small as those of most runs."""

Commit = Callable[[Connection, str, int], Awaitable[bool]]


async def update(connection: Connection, id: str, seq: int) -> bool:
    """What the store does: one conditional UPDATE of the static head and one row."""
    return await connection.decide(UPDATE, seq + 1, "head", DATA, id, seq, seq or None)


async def batch(connection: Connection, id: str, seq: int) -> bool:
    """Head and row as two statements."""
    condition = (HEAD, (seq + 1, "head", id, seq or None))
    return await connection.decide_together(condition, [(ROW, (id, seq, DATA))])


async def group(connection: Connection, id: str, seq: int) -> bool:
    """Ten turns of a shard under the shard's version."""
    rows = [(ROW, (id, GROUP * seq + number, DATA)) for number in range(GROUP)]
    return await connection.decide_together((HEAD, (seq + 1, "head", id, seq or None)), rows)


async def plain(connection: Connection, id: str, seq: int) -> bool:
    """What a lease would allow: nobody is asked."""
    await connection.write(PLAIN, seq + 1, "head", DATA, id, seq)
    return True


WAYS: dict[str, tuple[Commit, int]] = {"update": (update, 1), "batch": (batch, 1), "group": (group, GROUP)}
"""With the turns of each commit."""


async def commits(connection: Connection, way: Commit, number: int, lanes: int) -> list[float]:
    """The time of each, in ms. A lane commits one after the other."""
    ids, times = (f"{way.__name__}-{time.time_ns()}-{each}" for each in count()), list[float]()

    async def lane() -> None:
        for _ in range(number // lanes // TURNS_PER_ID):
            id = next(ids)
            for seq in range(TURNS_PER_ID):
                began = time.perf_counter()
                assert await way(connection, id, seq), "nobody else commits"
                times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return times


async def measured(connection: Connection, way: Commit, turns: int, pid: int) -> dict[str, float]:
    alone = await commits(connection, way, ALONE, 1)
    spent, jit, began = machine.cpu_seconds([pid]), machine.compiler_seconds(pid), time.perf_counter()
    client = time.process_time()
    done = len(await commits(connection, way, CROWD // turns, IN_FLIGHT)) * turns
    jit = machine.compiler_seconds(pid) - jit
    return {
        "alone_p50_ms": statistics.median(alone),
        "turns_per_s_at_50": done / (time.perf_counter() - began),
        "cassandra_cpu_ms": (machine.cpu_seconds([pid]) - spent - jit) / done * 1000,
        "client_cpu_ms": (time.process_time() - client) / done * 1000,
    }


async def of_server(port: int, pid: int, console: Console, ways: dict[str, tuple[Commit, int]]) -> dict[str, Any]:
    settings = CassandraSettings(port=port, keyspace="bench")
    connection = await connect(settings, None)
    strategy = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    await connection.run(f"CREATE KEYSPACE bench WITH replication = {strategy}")
    await connection.close()
    connection = await connect(settings, "bench")
    found: dict[str, Any] = {}
    try:
        await connection.run(TABLE)
        for way, turns in ways.values():
            await commits(connection, way, WARM_UP // turns, IN_FLIGHT)
        for name, (way, turns) in ways.items():
            console.print(f"  {name}")
            found[name] = await measured(connection, way, turns, pid)
    finally:
        await connection.close()
    return found


@contextmanager
def cassandra(paxos: str) -> Iterator[tuple[int, int]]:
    """Port and process id of a new one."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as place:
        port = free_port()
        environment = {
            **os.environ, "CASSANDRA_DATA": place, "CASSANDRA_PORT": str(port),
            "CASSANDRA_STORAGE_PORT": str(free_port()), "CASSANDRA_YAML_EXTRA": f"paxos_variant: {paxos}",
        }  # fmt: skip
        script = SCRIPTS / "cassandra.sh"
        try:
            for verb in ("install", "start", "wait"):
                subprocess.run([script, verb], env=environment, check=True, stdout=subprocess.DEVNULL)
            yield port, int((Path(place) / "cassandra.pid").read_text())
        finally:
            subprocess.run([script, "stop"], env=environment, check=False, stdout=subprocess.DEVNULL)


def main() -> int:
    console, others = Console(stderr=True), 0.0
    figures: dict[str, Any] = {}
    for paxos, ways in (("v1", WAYS | {"plain": (plain, 1)}), ("v2", WAYS)):
        console.print(f"Paxos {paxos}")
        with cassandra(paxos) as (port, pid):
            neighbours = machine.Neighbours([pid])
            found = asyncio.run(of_server(port, pid, console, ways))
            others = max(others, neighbours.share())
        figures |= {f"{name}, Paxos {paxos}" if name != "plain" else name: values for name, values in found.items()}
    table = Table("commit", *(key.replace("_", " ") for key in figures["plain"]), box=None)
    for name, values in figures.items():
        table.add_row(name, *(f"{value:.2f}" for value in values.values()))
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    about = {"others_cpu_share": others, "machine": machine.description()}
    RESULT.write_text(json.dumps({**figures, **about}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
