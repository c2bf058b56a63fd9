"""The loop that async tasks run on, apart from messaging; and who watches it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from perdure._worker.blocking import blocking
from perdure._worker.execution import Attempt, Ended, call_async
from perdure._worker.handover import Handover

log = logging.getLogger("perdure.worker")

BLOCKED_SECONDS = 1.0
"""A loop that gives nobody a turn for so long delays every task on it visibly."""
PROBE_SECONDS = 0.25
PAUSED_FROM = 2.0
"""Looks that lie so many times as far apart as they should: the whole process stood still meanwhile, which is no task's
fault. Of such a pause no more than this counts."""

Report = Callable[[Attempt, Ended], None]


class AsyncTasks:
    """Runs async tasks on a given loop, as asyncio tasks. `report` is called there, in that thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Report) -> None:
        self._loop = loop
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()
        self._starts: Handover[Attempt] = Handover(loop, self._start)
        self._cancels: Handover[Attempt] = Handover(loop, self._cancel)

    def start(self, attempt: Attempt) -> None:
        self._starts.put(attempt)

    def cancel(self, attempt: Attempt) -> None:
        self._cancels.put(attempt)

    def _start(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self._tasks.add(
                self._loop.create_task(self._run(attempt), name=f"{attempt.run.name} {attempt.run.task_id}")
            )

    def _cancel(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            if attempt.handle is not None:
                attempt.handle.cancel(attempt.context.cancel_reason or None)

    async def _run(self, attempt: Attempt) -> None:
        current = asyncio.current_task()
        assert current is not None
        try:
            if attempt.context.canceled:  # before it could begin
                self._report(attempt, Ended(canceled=True))
                return
            attempt.handle = current  # only now: to cancel a task before its first step would skip the report
            self._report(attempt, await call_async(attempt))
        finally:
            self._tasks.discard(current)


class UserLoop:
    """A thread with an event loop for user code: a task that blocks it stops neither heartbeats nor messaging."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="perdure-tasks", daemon=True)
        self._stopping = False
        self._thread.start()
        self._watchdog = Watchdog(self.loop, self._thread)

    def stop(self) -> None:
        """Cancel what still runs there, and end the thread if it lets itself be ended."""
        self._watchdog.stop()
        self._stopping = True
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            return
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # from an asyncio task that user code made: not ours to obey
                log.exception("task_exit_ignored", extra={"action": "task_exit_ignored"})
        leftover = asyncio.all_tasks(self.loop)
        for task in leftover:
            task.cancel()
        if leftover:
            self.loop.run_until_complete(asyncio.wait(leftover, timeout=0.5))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Watchdog:
    """Measures how long a loop lets others wait, and names the line that blocks it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._loop = loop
        self._watched = thread
        self._answered = time.monotonic()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="perdure-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(PROBE_SECONDS):
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                return
            reported, spent, before = False, 0.0, asked
            while self._answered < asked and not self._stopped.wait(PROBE_SECONDS / 5):
                now = time.monotonic()
                passed, before = now - before, now
                spent += min(passed, PAUSED_FROM * PROBE_SECONDS / 5)
                if not reported and spent >= BLOCKED_SECONDS:
                    reported = True
                    self._tell(asked)

    def _answer(self) -> None:
        self._answered = time.monotonic()

    def _tell(self, since: float) -> None:
        found = blocking(self._watched)
        if found is None:
            return
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else ""
        log.warning(
            "task_blocks_loop: %s\n  has blocked the loop of async tasks for %.1f s; all others wait. "
            "Await instead, or declare the task with `def`: it then gets a thread.",
            found,
            time.monotonic() - since,
            extra={"action": "task_blocks_loop", "task": name, **found.facts},
        )
