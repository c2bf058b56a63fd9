"""What the numbers were measured on, and the processor time and memory of processes (Linux: /proc)."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import time
from collections.abc import Collection, Iterable
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS = (3, 4)
"""Of the `cpu` line of /proc/stat: idle, and waiting for a disk."""
_CALIBRATION_STEPS = 200_000


def description() -> str:
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return (
        f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes: what else ran here."""
    return [round(value, 2) for value in os.getloadavg()]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes, all threads, so far."""
    return sum(sum(map(int, _after_name(pid)[11:13])) for pid in pids) / TICKS_PER_SECOND


def compiler_seconds(pid: int) -> float:
    """Processor time of a JVM's compiler threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().rpartition(")")
        if re.search(r"C[12] Compiler", name):
            total += sum(map(int, rest.split()[11:13]))
    return total / TICKS_PER_SECOND


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory. Pages that processes share are counted once for each."""
    page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
    return sum(int(_after_name(pid)[21]) for pid in pids) * page_mb


class Neighbours:
    """What other processes took of this machine while we measured.

    Ours are this one, its children, the ended too, and `detached`: processes that live all the while.
    """

    def __init__(self, detached: Collection[int] = ()) -> None:
        self._detached = detached
        self._started = time.perf_counter()
        self._before = self._of_others()

    def share(self) -> float:
        """Of all cores, since this was made; 0: the machine was ours alone."""
        taken = self._of_others() - self._before
        return max(0.0, taken / (time.perf_counter() - self._started) / (os.cpu_count() or 1))

    def _of_others(self) -> float:
        return _machine_seconds() - _own_seconds() - cpu_seconds(self._detached)


def calibration_ms() -> float:
    """Processor time of a fixed loop of plain Python: how fast this machine was at that moment."""
    started = time.process_time()
    number = 0
    for step in range(_CALIBRATION_STEPS):
        number ^= step
    return (time.process_time() - started) * 1000


def _machine_seconds() -> float:
    values = [int(value) for value in _lines("/proc/stat")[0].split()[1:9]]
    return sum(value for index, value in enumerate(values) if index not in _IDLE_FIELDS) / TICKS_PER_SECOND


def _own_seconds() -> float:
    """Of this process and of its children, the ended and the running."""
    return sum(os.times()[:4]) + cpu_seconds(_children())


def _children() -> list[int]:
    """Of the main thread, which is the one that starts any."""
    return [int(pid) for line in _lines(f"/proc/self/task/{os.getpid()}/children") for pid in line.split()]


def _after_name(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
