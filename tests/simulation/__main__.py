"""Simulate many schedules: `python -m tests.simulation --seeds 2000 --first 0`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from os import cpu_count

from tests.simulation.catalog import WORKLOADS
from tests.simulation.faults import NO_FAULTS
from tests.simulation.schedule import Report, simulate

BATCH = 25
"""Seeds a process takes at a time."""
PROGRESS_SECONDS = 10.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workload", choices=sorted(WORKLOADS), help="this one alone; drawn by the seed unless given")
    parser.add_argument("--processes", type=int, default=cpu_count() or 1)
    parser.add_argument("--no-faults", action="store_true", help="a world in which nothing goes wrong")
    parser.add_argument("--above", type=int, help="store values of more bytes beside the messages: 0 for all of them")
    parser.add_argument("--log", action="store_true", help="print what went wrong in each schedule, and when")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # what goes wrong here is meant to
    faults = NO_FAULTS if options.no_faults else None
    seeds = range(options.first, options.first + options.seeds)
    schedule = partial(simulate, faults=faults, workload=options.workload, above=options.above)
    return _report(_reports(seeds, schedule, options.processes), len(seeds), options)


def _reports(seeds: range, schedule: Callable[[int], Report], processes: int) -> Iterator[Report]:
    if processes == 1 or len(seeds) <= BATCH:
        yield from map(schedule, seeds)
        return
    rest = iter(seeds)
    batches = iter(lambda: list(islice(rest, BATCH)), [])
    with ProcessPoolExecutor(processes) as pool:
        pending = [pool.submit(_batch, batch, schedule) for batch in batches]
        for future in pending:
            yield from future.result()


def _batch(seeds: Iterable[int], schedule: Callable[[int], Report]) -> list[Report]:
    reports = [schedule(seed) for seed in seeds]
    for report in reports:
        if not report.violations:
            report.log = []
    return reports


def _report(reports: Iterable[Report], total: int, options: argparse.Namespace) -> int:
    began = told = time.monotonic()
    stats: Counter[str] = Counter()
    workloads: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    failed = done = 0
    for report in reports:
        done += 1
        stats += report.stats
        workloads[report.workload] += 1
        if options.log:
            print(*report.log, sep="\n")
        if report.violations:
            failed += 1
            kinds.update({violation.partition(":")[0] for violation in report.violations})
            print(f"seed {report.seed} {report.workload}: {'; '.join(report.violations)[:400]}")
            above = "" if options.above is None else f"--above {options.above} "
            command = f"--seeds 1 --first {report.seed} --workload {report.workload} {above}--log"
            print(f"  replay: PYTHONHASHSEED=0 python -m tests.simulation {command}")
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{done} of {total} schedules, {failed} with a violation, {told - began:.0f} s", flush=True)
    print(f"{done} schedules in {time.monotonic() - began:.1f} s, {failed} with a violation {dict(kinds) or ''}")
    print("workloads:", dict(sorted(workloads.items())))
    print("faults:", dict(sorted(stats.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
