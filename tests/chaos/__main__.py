"""`python -m tests.chaos --seconds 60 --seed 1`: load, faults, and what they could not break."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.audit import Report
from tests.chaos.broken import MUTATIONS
from tests.chaos.course import USERS, chaos, deployed, while_engines_are_killed
from tests.chaos.nemesis import Nemesis
from tests.chaos.recovery import measure_recovery
from tests.chaos.stack import Stack, servers_of_its_own

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--broken", nargs="*", choices=sorted(MUTATIONS), help="defects; only engines are killed")
    parser.add_argument("--report", type=Path, default=ROOT / "build/chaos/report.json")
    options = parser.parse_args()
    report = asyncio.run(_run(options))
    sys.exit(1 if report.violations else 0)


async def _run(options: argparse.Namespace) -> Report:
    began = time.monotonic()
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)  # which ends what was started

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    place = Path(tempfile.mkdtemp(prefix="perdure-chaos-"))
    async with servers_of_its_own(place, tell) as stack:
        nemesis = Nemesis(stack, options.seed, tell)
        async with deployed(stack, "default", options.broken or ()) as client:
            tell(f"the first run is through; logs are in {place}")
            if options.broken is not None:
                report = await while_engines_are_killed(client, stack, options.seed, options.seconds)
            else:
                recovery_s = await measure_recovery(client, stack, tell)
                report = await chaos(client, stack, nemesis, seconds=options.seconds, users=options.users, tell=tell)
                report.recovery_s = recovery_s
    _tell_report(report, stack, nemesis, options, time.monotonic() - began)
    return report


def _tell_report(  # noqa: PLR0917
    report: Report, stack: Stack, nemesis: Nemesis, options: argparse.Namespace, seconds: float
) -> None:
    value = {
        "seed": options.seed, "seconds": options.seconds, "took_s": round(seconds, 1), "runs": report.runs,
        "tasks": report.tasks, "executions": report.executions, "attempts_executed_again": report.repeated_attempts,
        "attempts_published_again": report.published_twice, "latest_timer_ms": report.late_ms_max,
        "histories_gone_before_they_were_read": report.forgotten,
        "compared_with_the_read_model": report.listed, "records_open_for_an_hour": report.open_tasks,
        "recovery_s": report.recovery_s,
        "ended_by_themselves": dict(sorted(stack.deaths.items())), "faults": dict(sorted(nemesis.faults.items())),
        "violations": report.violations,
    }  # fmt: skip
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(value, indent=1) + "\n")
    for violation in report.violations[:50]:
        print(f"violation: {violation}")
    print(
        f"seed {options.seed}: {report.runs} runs, {report.tasks} tasks, {report.executions} executions "
        f"({report.repeated_attempts} of an attempt again), {nemesis.faults.total()} faults in {seconds:.0f} s; "
        f"violations: {len(report.violations)}"
    )


if __name__ == "__main__":
    main()
