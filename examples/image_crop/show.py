"""Progress on the terminal; plain lines where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

POLL_SECONDS = 0.02


class Show:
    """A bar over `total`, fed from `done()`, and lines above it."""

    def __init__(self, console: Console, total: int, done: Callable[[], int]) -> None:
        self._done = done
        self._progress = Progress(
            TextColumn("pictures"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("pictures", total=total)
        self._console = console

    def say(self, line: str) -> None:
        self._console.print(line)

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Keeps the bar moving until the condition holds.

        Raises:
            TimeoutError: it did not within that time.
        """
        async with asyncio.timeout(seconds):
            while True:
                self._progress.update(self._bar, completed=self._done())
                if condition():
                    return
                await asyncio.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.update(self._bar, completed=self._done())
        self._progress.stop()
