"""Threads for tasks declared with `def`."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable

from perdure._worker.execution import Attempt, call_sync
from perdure._worker.user_loop import Report


class Threads:
    """Runs plain functions, each in a thread that does nothing else meanwhile.

    Threads are daemons, unlike those of `concurrent.futures`: a task that hangs must not keep the process from ending.
    They are as many as ran at once so far, which the worker's slots bound.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self._total = 0

    def submit(self, work: Callable[[], None]) -> None:
        """`work` must not raise."""
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                self._total += 1
                threading.Thread(target=self._run, name=f"perdure-task-{self._total}", daemon=True).start()
        self._work.put(work)

    def stop(self) -> None:
        for _ in range(self._total):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            contextvars.Context().run(work)
            del work  # holds the attempt
            with self._lock:
                self._free += 1


class ThreadTasks:
    """Tasks of mode "thread". They cannot be interrupted: a cancel sets their context's flag."""

    def __init__(self, threads: Threads, report: Report) -> None:
        self._threads = threads
        self._report = report

    def start(self, attempt: Attempt) -> None:
        self._threads.submit(lambda: self._report(attempt, call_sync(attempt)))

    def cancel(self, attempt: Attempt) -> None:
        """Nothing beyond the flag in the context, which is already set."""


class InlineTasks:
    """Tasks of mode "thread" or "process" in simulations: on the calling loop, at once."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def start(self, attempt: Attempt) -> None:
        ended = contextvars.Context().run(call_sync, attempt)
        self._report(attempt, ended)

    def cancel(self, attempt: Attempt) -> None:
        """It has ended."""
