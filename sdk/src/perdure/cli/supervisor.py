"""Keeps one worker process running: starts it again when it dies, or when it ended to be reloaded."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from perdure._worker.supervision import EXIT_RELOAD, Broken, Ready

RESTART_SECONDS_FIRST = 0.05
RESTART_SECONDS_MAX = 2.0
HEALTHY_SECONDS = 5.0
"""A worker that lived this long is started again at once, whatever it died of."""
DRAIN_SECONDS = 10.0
"""From SIGTERM to SIGKILL: time for the attempts under way to end; those that do not are delivered again."""
READ_BYTES = 65_536
"""What a pipe holds."""


@dataclass(frozen=True)
class Notice:
    """Something that happened to the worker: `started`, `ready`, `broken`, `exited` or `reloading`."""

    event: str
    pid: int
    code: int | None = None
    told: Ready | Broken | None = None
    """What it has, when it is ready; or why it cannot load the app."""


class Supervisor:
    """One worker child. It ends by itself when this process does, however that ends: it reads our end of its stdin."""

    def __init__(self, command: list[str], notify: Callable[[Notice], None]) -> None:
        self._command = command
        self._notify = notify
        self._child: asyncio.subprocess.Process | None = None
        self._told = b""

    async def run(self) -> None:
        """Until canceled; then the worker is drained."""
        delay = RESTART_SECONDS_FIRST
        try:
            while True:
                started = time.monotonic()
                code = await self._run_once()
                if code == EXIT_RELOAD or time.monotonic() - started > HEALTHY_SECONDS:
                    delay = RESTART_SECONDS_FIRST
                await asyncio.sleep(delay)
                delay = min(delay * 2, RESTART_SECONDS_MAX)
        finally:
            await self._stop()

    async def _run_once(self) -> int:
        ready_read, ready_write = os.pipe()
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                "--ready-fd",
                str(ready_write),
                stdin=asyncio.subprocess.PIPE,
                stdout=sys.stderr,  # our stdout is for programs; what user code prints is for people
                pass_fds=[ready_write],
                env=environment,
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        finally:
            os.close(ready_write)
        self._child = child
        self._told = b""
        self._notify(Notice("started", child.pid))
        loop = asyncio.get_running_loop()
        loop.add_reader(ready_read, self._on_ready, ready_read, child.pid)
        try:
            code = await child.wait()
        finally:
            loop.remove_reader(ready_read)
            os.close(ready_read)
        self._notify(Notice("reloading" if code == EXIT_RELOAD else "exited", child.pid, code))
        return code

    def _on_ready(self, ready_read: int, pid: int) -> None:
        """It writes once and closes its end; or it closes its end because it dies."""
        part = os.read(ready_read, READ_BYTES)
        self._told += part
        if part:
            return
        asyncio.get_running_loop().remove_reader(ready_read)
        try:
            told = msgspec.json.decode(self._told, type=Ready | Broken)
        except msgspec.DecodeError:
            return
        self._notify(Notice("ready" if isinstance(told, Ready) else "broken", pid, told=told))

    async def _stop(self) -> None:
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), DRAIN_SECONDS)
        except TimeoutError:
            child.kill()
            await child.wait()

    def kill(self) -> None:
        """At once, for a hard exit."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
