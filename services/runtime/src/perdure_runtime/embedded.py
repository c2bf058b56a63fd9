"""All engines in one process, on any ports: what laptops and tests run. The engines are the very same."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from perdure_runtime.ports import Ports
from perdure_runtime.projector import Projector
from perdure_runtime.sweep import Sweep
from perdure_runtime.task_driver import TaskEngine
from perdure_runtime.task_holds import HOLD_MAX_S
from perdure_runtime.timer_driver import TimerService
from perdure_runtime.workflow_driver import WorkflowEngine


class Embedded:
    """Workflow engine, task engine, timers, projector and sweep, as an async context manager."""

    def __init__(
        self,
        ports: Ports,
        namespace: str = "default",
        owner: str = "embedded",
        *,
        task_hold_seconds: float = HOLD_MAX_S,
    ) -> None:
        """`task_hold_seconds` is for tests: how long the task engine keeps in memory what may be over soon."""
        self.ports = ports
        self.namespace = namespace
        self._owner = owner
        self._task_hold_seconds = task_hold_seconds
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        services = {
            "workflow engine": WorkflowEngine(self.ports, self.namespace, self._owner).run(),
            "task engine": TaskEngine(
                self.ports, self.namespace, self._owner, hold_seconds=self._task_hold_seconds
            ).run(),
            "timers": TimerService(self.ports, self.namespace).run(),
            "projector": Projector(self.ports, self.namespace).run(),
            "sweep": Sweep(self.ports, self.namespace).run(),
        }
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(service, name=name) for name, service in services.items()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def failed(self) -> None:
        """Wait until an engine stops by itself, which none should; raises what stopped it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
