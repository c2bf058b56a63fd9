"""`perdure dev` as a child process of the demo."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class Engine:
    """The engine with its worker. `process` and `worker` are their process ids; clients connect by `database`."""

    def __init__(self, app: Path, database: Path) -> None:
        self.database = database
        self.worker = 0
        self._command = [sys.executable, "-m", "perdure.cli", "dev", str(app), "--db", str(database)]
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def process(self) -> int:
        return self._child.pid if self._child else 0

    async def start(self) -> None:
        """Returns when the engine runs and its worker takes tasks."""
        self._ready.clear()
        self._child = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.PIPE)
        assert self._child.stdout is not None
        self._reader = asyncio.create_task(self._read(self._child.stdout))
        async with asyncio.timeout(20):
            await self._ready.wait()

    async def _read(self, lines: asyncio.StreamReader) -> None:
        """One JSON object a line, since nobody sits at the other end."""
        async for line in lines:
            notice = json.loads(line)
            if notice["event"] == "worker-ready":
                self.worker = notice["pid"]
                self._ready.set()

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child is not None
        if self._child.returncode is None:
            self._child.terminate()
        await self._child.wait()
