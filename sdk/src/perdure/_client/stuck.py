"""Who waits for a run is told that it is stuck: it may wait for long, and its code may be mended meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from perdure._replay.guard import seeds
from perdure.errors import PerdureError, ResultTimeout, UnfitSkip
from perdure_schemas.messages import RunChanged

log = logging.getLogger("perdure.client")

LOOK_SECONDS = 5.0
"""Between two looks at the run: most runs end before the first, which then costs nothing but a timer."""


class StuckWatch:
    """Looks at the run until it is closed, and logs a warning whenever it is stuck for another reason than before."""

    __slots__ = ("_describe", "_looking", "_loop", "_timer", "_told")

    def __init__(self, describe: Callable[[], Awaitable[RunChanged]]) -> None:
        self._describe = describe
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        self._looking: asyncio.Task[None] | None = None
        self._told = ""

    def close(self) -> None:
        """The wait is over."""
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._looking = self._loop.create_task(self._tell(), name="perdure stuck watch")

    async def _tell(self) -> None:
        try:
            run = await self._describe()
        except PerdureError:  # for the wait to tell, if it lasts
            run = None
        if run is not None and run.status == "stuck" and run.last_error != self._told:
            self._told = run.last_error
            log.warning(
                "run %r is stuck: %s. It and who waits for it go on once %s; or terminate it",
                run.workflow_id,
                run.last_error.rstrip("."),
                _cure(run.last_error),
                extra={"action": "waits_for_stuck_run"},
            )
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)


def overdue(workflow_id: str, seconds: float | None, run: RunChanged | None) -> ResultTimeout:
    """What is told of a run that is open after so many seconds, and stands as `run` says, if that is known."""
    open_still = f"run {workflow_id!r} is still open after {seconds} s"
    if run is None:
        return ResultTimeout(f"{open_still}; it goes on, ask again")
    match run.status:
        case "stuck":
            told = f"stuck: {run.last_error.rstrip('.')}. It goes on once {_cure(run.last_error)}; or terminate it"
        case "paused":
            told = "paused: it goes on once it is unpaused"
        case _:
            told = f"{run.status}: it goes on, ask again"
    return ResultTimeout(f"{open_still}, {told}", status=run.status, last_error=run.last_error)


def _cure(error: str) -> str:
    """What the run goes on after."""
    kind, _, message = error.partition(": ")
    told = kind == UnfitSkip.__name__ or message.startswith(seeds.STRANGE)
    return "that is done" if told else "its code is mended"
