"""Where turns run: a thread of their own, or, in simulations, the calling loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from perdure._worker.handover import Handover
from perdure._worker.turns import TurnDesk, TurnJob, TurnResult

TurnDone = Callable[[list[tuple[TurnJob, TurnResult]]], None]


class TurnRunner(Protocol):
    """Does the turns of jobs and tells `done`, on the loop, in batches."""

    def submit(self, jobs: Sequence[TurnJob]) -> None: ...

    def stop(self) -> None: ...


class InlineTurns:
    """Turns on the calling loop, at once: no thread, no real time."""

    def __init__(self, desk: TurnDesk, done: TurnDone) -> None:
        self._desk = desk
        self._done = done

    def submit(self, jobs: Sequence[TurnJob]) -> None:
        self._done(list(zip(jobs, self._desk.run(jobs), strict=True)))

    def stop(self) -> None:
        self._desk.close()


class TurnThread:
    """Turns on one dedicated thread, never the main one: no signal handler raises inside workflow code, and the
    loop that talks to the broker goes on whatever a workflow does.
    """

    def __init__(self, desk: TurnDesk, done: TurnDone, loop: asyncio.AbstractEventLoop) -> None:
        self._desk = desk
        self._jobs: queue.SimpleQueue[Sequence[TurnJob] | None] = queue.SimpleQueue()
        self._results: Handover[tuple[TurnJob, TurnResult]] = Handover(loop, done)
        self._thread = threading.Thread(target=self._run, name="perdure-workflows", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[TurnJob]) -> None:
        self._jobs.put(jobs)

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while (jobs := self._jobs.get()) is not None:
            for job, result in zip(jobs, self._desk.run(jobs), strict=True):
                self._results.put((job, result))
        self._desk.close()
