"""Measures the replay loop alone, no engine, broker or store: `make replay`. Writes build/bench/replay.json.

All times are processor time of this process, the least of several rounds: other processes disturb them little.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import msgspec
from rich.console import Console
from rich.table import Table

from perdure import Workflow, all_of, task, workflow
from perdure._replay.code import RunContext
from perdure._replay.instance import Instance
from perdure_schemas.common import Payload, RunOptions
from perdure_schemas.events import CommandSettled, Recorded, Started, TurnCommitted

RESULT = Path("build/bench/replay.json")
EVENTS = 10_000
"""Of a history: as many as commands, outcomes and turns together."""
LIVE = 1_000
RESUMES = 20_000
ROUNDS = 5
STARTED_AT = 1_700_000_000_000

TARGETS = {"replay_sequence_s": 1.0, "replay_gather_s": 1.0, "replay_branches_s": 1.0, "resume_us": 40.0}


@task
async def step(number: int) -> int:
    return number


@workflow
async def sequence(count: int) -> int:
    total = 0
    for number in range(count):
        total += await step(number)
    return total


@workflow
async def fan(count: int) -> int:
    return sum(await asyncio.gather(*(step(number) for number in range(count))))


@workflow
async def group(count: int) -> int:
    return sum(await all_of([step(number) for number in range(count)]))


async def two_steps(number: int) -> int:
    return await step(await step(number))


@workflow
async def branches(count: int) -> int:
    return sum(await asyncio.gather(*(two_steps(number) for number in range(count))))


@workflow
async def minimal(number: int) -> int:
    return await step(number)


def instance_of(code: Workflow[..., Any], number: int = 0) -> Instance:
    context = RunContext(
        namespace="default",
        workflow_id=f"workflow-{number}",
        run_id=f"run-{number}",
        name=code.name,
        started_at=STARTED_AT,
    )
    return Instance(code.code, context)


def started(count: int) -> Recorded:
    args = Payload("json", msgspec.json.encode([count]))
    event = Started(run_id="run-0", name="bench", args=args, options=RunOptions())
    return Recorded(seq=1, at=STARTED_AT, cause="", event=event)


@dataclass
class Played:
    """A whole history, made by playing it: every outcome is a turn of its own."""

    history: list[Recorded]
    seconds: float
    """Of the live turns."""


def play(code: Workflow[..., Any], count: int, events: int = 1 << 30) -> Played:
    """Play until the end, or for so many records."""
    live = instance_of(code)
    history: list[Recorded] = [started(count)]
    unanswered: list[str] = []
    spent = 0.0
    while len(history) < events:
        before = time.process_time()
        turn = live.turn(history[-1:], base=len(history), generation=0)
        spent += time.process_time() - before
        unanswered += [command.id for command in turn.commands]
        committed = TurnCommitted(
            workflow_task_id="t",
            base=len(history),
            nonce="n",
            generation=0,
            commands=turn.commands,
            waits_for=turn.waits_for,
        )
        history.append(Recorded(seq=len(history) + 1, at=STARTED_AT, cause="", event=committed))
        if turn.completion is not None:
            break
        outcome = CommandSettled(command_id=unanswered.pop(0), outcome="completed", result=Payload("json", b"1"))
        history.append(Recorded(seq=len(history) + 1, at=STARTED_AT + len(history), cause="", event=outcome))
    live.evict()
    return Played(history, spent)


def least(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Processor seconds of the best round."""
    times = []
    for _ in range(rounds):
        gc.collect()
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return min(times)


def replay(code: Workflow[..., Any], history: list[Recorded]) -> None:
    rebuilt = instance_of(code)
    rebuilt.replay(history)
    assert rebuilt.stoppage is None
    rebuilt.evict()


def measure_replay() -> dict[str, float]:
    figures = {}
    for name, code, commands in [
        ("sequence", sequence, EVENTS // 2),
        ("gather", fan, EVENTS // 2),
        ("all_of", group, EVENTS // 2),
        ("branches", branches, EVENTS // 4),
    ]:
        played = play(code, commands)
        turns = sum(isinstance(record.event, TurnCommitted) for record in played.history)
        figures[f"replay_{name}_s"] = least(lambda: replay(code, played.history))  # noqa: B023  # run at once
        figures[f"live_{name}_us_per_turn"] = played.seconds / turns * 1e6
    return figures


def measure_growth() -> dict[str, float]:
    """Replay of ten times the events against ten times the cost: 1 is linear."""
    short, long = (play(sequence, count).history for count in (EVENTS // 20, EVENTS // 2))
    return {"growth_ratio": least(lambda: replay(sequence, long)) / (10 * least(lambda: replay(sequence, short)))}


def measure_resume() -> dict[str, float]:
    """One event for one of many live runs, as the worker feeds it."""
    runs = [instance_of(sequence, number) for number in range(LIVE)]
    waiting: list[str] = []
    for run in runs:
        waiting.append(run.turn([started(1 << 20)], base=1, generation=0).commands[0].id)
    seqs = itertools.count(2)
    events = []

    def resume() -> None:
        for index in range(RESUMES):
            which = index % LIVE
            outcome = CommandSettled(command_id=waiting[which], outcome="completed", result=Payload("json", b"1"))
            event = Recorded(seq=next(seqs), at=STARTED_AT, cause="", event=outcome)
            events.append(event)
            waiting[which] = runs[which].turn([event], base=event.seq, generation=0).commands[0].id

    seconds = least(resume, 3)
    for run in runs:
        run.evict()
    return {"resume_us": seconds / RESUMES * 1e6}


def measure_lives() -> dict[str, float]:
    """Create, start and evict; the memory that a live run takes."""
    count = LIVE * 5
    gc.collect()
    memory = machine.rss_mb([os.getpid()])
    begun = time.process_time()
    runs = []
    for number in range(count):
        run = instance_of(minimal, number)
        run.turn([started(1)], base=1, generation=0)
        runs.append(run)
    spent = time.process_time() - begun
    kilobytes = (machine.rss_mb([os.getpid()]) - memory) * 1000 / count
    begun = time.process_time()
    for run in runs:
        run.evict()
    return {
        "start_us": spent / count * 1e6,
        "live_kb": kilobytes,
        "evict_us": (time.process_time() - begun) / count * 1e6,
    }


def show(figures: dict[str, Any]) -> bool:
    table = Table("measure", "value", "limit", title=f"replay loop, {EVENTS:,} events", title_justify="left")
    kept = True
    for key, value in figures.items():
        if not isinstance(value, float):
            continue
        limit = TARGETS.get(key)
        broken = limit is not None and value > limit
        kept = kept and not broken
        table.add_row(key, f"{'[red]' if broken else ''}{value:.4g}", "" if limit is None else f"<= {limit:g}")
    console = Console()
    console.print(table)
    console.print(f"{figures['machine']}; load {figures['load']}")
    return kept


def main() -> int:
    figures: dict[str, Any] = {**measure_lives(), **measure_resume(), **measure_replay(), **measure_growth()}
    figures |= {"machine": machine.description(), "load": machine.load(), "calibration_ms": machine.calibration_ms()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if show(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
