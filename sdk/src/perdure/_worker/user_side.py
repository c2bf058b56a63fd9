"""Everything that user code runs on: the workflow thread, the loop of async tasks, threads, processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from perdure._worker.attempts import Executor
from perdure._worker.processes import ProcessTasks
from perdure._worker.task_time import TaskTime
from perdure._worker.threads import InlineTasks, Threads, ThreadTasks
from perdure._worker.turn_thread import InlineTurns, TurnDone, TurnRunner, TurnThread
from perdure._worker.turns import TurnDesk
from perdure._worker.user_loop import AsyncTasks, Report, UserLoop
from perdure.task import Mode


class UserSide:
    """Threads apart from messaging; or, in simulations, the calling loop for all of it."""

    def __init__(
        self,
        make_desk: Callable[[], TurnDesk],
        done: TurnDone,
        report: Report,
        *,
        inline: bool,
        async_time: TaskTime,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._inline = inline
        self._threads = Threads()
        self._loop: UserLoop | None = None
        self._processes: ProcessTasks | None = None
        self.turns: TurnRunner
        self.executors: Mapping[Mode, Executor]
        if inline:
            self.turns = InlineTurns(make_desk(), done)
            at_once = InlineTasks(report)
            self.executors = {"async": AsyncTasks(loop, report), "thread": at_once, "process": at_once}
            return
        self.turns = TurnThread(make_desk, done, loop)
        self._loop = UserLoop(async_time.new_loop())
        self._processes = ProcessTasks(self._threads, report)
        self.executors = {
            "async": AsyncTasks(self._loop.loop, report),
            "thread": ThreadTasks(self._threads, report),
            "process": self._processes,
        }

    async def close(self) -> None:
        """End the threads that let themselves be ended, without holding up the calling loop meanwhile."""
        if self._inline:
            self._stop()
        else:
            await asyncio.get_running_loop().run_in_executor(None, self._stop)

    def _stop(self) -> None:
        self.turns.stop()
        if self._loop is not None:
            self._loop.stop()
        if self._processes is not None:
            self._processes.stop()
        self._threads.stop()
