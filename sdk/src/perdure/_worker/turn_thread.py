"""Where turns run: a thread of their own, or, in simulations, the calling loop."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from perdure._replay import collector
from perdure._worker.blocking import blocking
from perdure._worker.handover import Handover
from perdure._worker.turns import TurnDesk, TurnJob, TurnResult
from perdure.errors import Blocked

log = logging.getLogger("perdure.worker")

TurnDone = Callable[[list[tuple[TurnJob, TurnResult]]], None]

WARN_SECONDS = 1.0
"""A turn takes a fraction of a millisecond; one that takes so long computes or waits, which is a task's business."""
INTERRUPT_SECONDS = 5.0
"""Half of what the engine gives a turn; far over what a loaded machine makes of a good one."""
ABANDON_SECONDS = 3.0
"""After the interrupt. Python can be interrupted at once; a call into C cannot, and may never end."""
REPLAYED_PER_SECOND = 1_000
"""Events that even a slow machine replays: rebuilding a long history may take longer than a turn."""
LOOK_SECONDS = 0.25
PAUSED_FROM = 2.0
"""Looks that lie so many times as far apart as they should: the whole process stood still meanwhile (stopped, moved to
another host, short of processors), which is not its workflows' fault. Of such a pause no more than this counts."""
BEGUN_MAX = 32
"""Some milliseconds of turns: the thread does not wait for the loop, and few have begun when one kills the worker."""


class TurnRunner(Protocol):
    """Does the turns of jobs and tells `done`, on the loop, in batches."""

    @property
    def begun_max(self) -> int:
        """How many turns it is given before the first of them has to be done. All of them die with one that kills."""
        ...

    def submit(self, jobs: Sequence[TurnJob]) -> None: ...

    def stop(self) -> None: ...


class InlineTurns:
    """Turns on the calling loop, at once: no thread, no real time."""

    begun_max = 1

    def __init__(self, desk: TurnDesk, done: TurnDone) -> None:
        self._desk = desk
        self._done = done

    def submit(self, jobs: Sequence[TurnJob]) -> None:
        self._done([(job, self._desk.run(job)) for job in jobs])

    def stop(self) -> None:
        self._desk.close()


class Lane:
    """A thread with its live runs, which no other thread ever touches."""

    def __init__(self, desk: TurnDesk, results: Handover[tuple[TurnJob, TurnResult]]) -> None:
        self._desk = desk
        self._results = results
        self.jobs: queue.SimpleQueue[TurnJob | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        """Held to change any of the following."""
        self.job: TurnJob | None = None
        """What is being done."""
        self.began = 0.0
        self.spent = 0.0
        """Seconds, as far as this process ran."""
        self.warned = False
        self.interrupted_at = 0.0
        """Seconds into the turn; 0: it was not."""
        self.abandoned = False
        # Never the main thread: no signal handler raises inside workflow code.
        self.thread = threading.Thread(target=self._run, name="perdure-workflows", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.abandoned and (job := self.jobs.get()) is not None:
            self._do(job)
        self._desk.close()

    def _do(self, job: TurnJob) -> None:
        result: TurnResult | None = None
        try:
            self._begin(job)
            result = self._desk.run(job)
            wanted = self._end()
        except Blocked as error:  # it came on the way out of the turn, and no second one comes
            if result is None:
                result = self._desk.failed(job, error)
            wanted = self._end()
        if wanted:
            self._results.put((job, result))

    def _begin(self, job: TurnJob) -> None:
        with self.lock:
            self.job = job
            self.began = time.monotonic()
            self.spent = 0.0
            self.warned = False
            self.interrupted_at = 0.0

    def _end(self) -> bool:
        """Whether the result is still wanted. An interrupt that comes too late for its turn must not hit the next."""
        with self.lock:
            interrupted = self.interrupted_at
            self.job = None
        if interrupted:
            try:
                time.sleep(0.001)  # a pending interrupt is raised at the latest here
            except Blocked:
                pass
            collector.forget(threading.get_ident())
        return not self.abandoned

    def interrupt(self) -> None:
        """Raise Blocked in the turn, with the lock held."""
        self.interrupted_at = self.spent
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident or 0), ctypes.py_object(Blocked))


class TurnThread:
    """Turns on a dedicated thread, watched: the loop that talks to the broker goes on whatever a workflow does."""

    begun_max = BEGUN_MAX

    def __init__(self, make_desk: Callable[[], TurnDesk], done: TurnDone, loop: asyncio.AbstractEventLoop) -> None:
        self._make_desk = make_desk
        self._results: Handover[tuple[TurnJob, TurnResult]] = Handover(loop, done)
        self._lane = Lane(make_desk(), self._results)
        self._replacing = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="perdure-turn-watch", daemon=True).start()

    def submit(self, jobs: Sequence[TurnJob]) -> None:
        with self._replacing:
            for job in jobs:
                self._lane.jobs.put(job)

    def stop(self) -> None:
        """Evict all that is live, unless a turn is still busy."""
        self._stopped.set()
        with self._replacing:  # else the end may be told to a lane that is just left behind, and its heir never ends
            lane = self._lane
            lane.jobs.put(None)
        lane.thread.join(timeout=1.0)

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(LOOK_SECONDS):
            now = time.monotonic()
            passed, before = min(now - before, PAUSED_FROM * LOOK_SECONDS), now
            if sys.gettrace() is not None or threading.gettrace() is not None:
                continue  # somebody looks at the turn in a debugger
            lane = self._lane
            with lane.lock:
                job = lane.job
                if job is None:
                    continue
                lane.spent = min(lane.spent + passed, now - lane.began)
                replay = len(job.records or ()) / REPLAYED_PER_SECOND
                if lane.spent > WARN_SECONDS + replay and not lane.warned:
                    lane.warned = True
                    _tell(lane.thread, job, lane.spent)
                if lane.spent > INTERRUPT_SECONDS + replay and not lane.interrupted_at:
                    lane.interrupt()
                lane.abandoned = bool(lane.interrupted_at) and lane.spent - lane.interrupted_at > ABANDON_SECONDS
            if lane.abandoned:
                self._replace(lane, job)

    def _replace(self, lane: Lane, job: TurnJob) -> None:
        """Its thread may never come back: the other runs go on in a new one, from their histories."""
        log.error("turn_abandoned", extra={"action": "turn_abandoned", "workflow_id": job.task.workflow_id})
        collector.forget(lane.thread.ident)
        desk = self._make_desk()
        failed = desk.timed_out(job, lane.spent)
        with self._replacing:
            self._lane = Lane(desk, self._results)
            while True:
                try:
                    self._lane.jobs.put(lane.jobs.get_nowait())
                except queue.Empty:
                    break
        self._results.put((job, failed))


def _tell(thread: threading.Thread, job: TurnJob, spent: float) -> None:
    found = blocking(thread)
    if found is None:
        return
    task = job.task
    log.warning(
        "turn_blocks: %s\n  has kept a turn of workflow %s for %.1f s; all workflows of this worker wait. "
        "Computing and waiting belong in a task.",
        found,
        task.name,
        spent,
        extra={"action": "turn_blocks", "workflow": task.name, "workflow_id": task.workflow_id, **found.facts},
    )
