"""A start of what no worker has ever announced waits, perhaps for ever: it may be a slip of the pen, and is told."""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from perdure.errors import PerdureError
from perdure_runtime.announced import Announced

_log = logging.getLogger("perdure.client")

Kind: TypeAlias = Literal["workflow", "task"]
WAIT_SECONDS_MAX = 2.0
"""What the answer to a start may be late for this: it is no part of the start."""
STARTING_SECONDS = 1.5
"""What a worker takes to start: about a second."""
_LOOK_SECONDS = 0.1
QUIET_SECONDS = 30.0
"""After nobody could tell: the next starts are not late for it, too."""
_WAITING: dict[Kind, str] = {"workflow": "the run", "task": "it"}
_TOLD_MAX = 20
"""Names in a sentence: the likeliest, and then as they come."""


class Known:
    """What has been announced, as far as was asked: each name that is known is asked for once."""

    def __init__(self, read: Callable[[], Awaitable[Announced | None]]) -> None:
        """`read` gives nothing where it cannot be known."""
        self._read = read
        self._quiet_until = 0.0
        self._waited = False
        self._names: dict[Kind, set[str]] = {"workflow": set(), "task": set()}

    def has(self, kind: Kind, name: str) -> bool:
        """Whether it is known that a worker has announced it."""
        return name in self._names[kind]

    async def lacking(self, kind: Kind, name: str) -> str:
        """What to tell who starts it; empty: a worker has announced it, or it is not known whether one has."""
        if self.has(kind, name) or time.monotonic() < self._quiet_until:
            return ""
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                announced = await self._some()
        except (PerdureError, TimeoutError) as error:
            _log.debug("not known which names workers have: %r", error)
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            return ""
        if announced is None:
            return ""
        if told := trouble(announced, name if kind == "workflow" else ""):
            return f"{told}; {_WAITING[kind]} waits until that is mended"
        names = announced.workflows if kind == "workflow" else announced.tasks
        self._names[kind].update(names)
        return "" if name in names else _sentence(kind, name, names)

    async def _some(self) -> Announced | None:
        """Once with patience: while no worker has announced anything, all may just be starting."""
        until = time.monotonic() + (0.0 if self._waited else STARTING_SECONDS)
        self._waited = True
        while True:
            found = await self._read()
            if found is None or found.workflows or found.tasks or found.broken or time.monotonic() >= until:
                return found
            await asyncio.sleep(_LOOK_SECONDS)

    async def tell(self, kind: Kind, name: str) -> None:
        """Logs it as a warning."""
        if told := await self.lacking(kind, name):
            _log.warning("%s", told, extra={"action": f"{kind}_unknown"})


def trouble(announced: Announced, workflow: str) -> str:
    """Why no worker runs the code of a workflow, of an app that was announced with it; empty: nothing that is known."""
    if announced.broken or workflow not in announced.left_out:
        return announced.broken
    return f"the worker leaves workflow {workflow} out: {announced.left_out[workflow]}"


def unserved(announced: Announced, workflow: str) -> str:
    """As `trouble`, or that no worker has the workflow at all."""
    if (told := trouble(announced, workflow)) or workflow in announced.workflows:
        return told
    return f"no worker has workflow {workflow!r}; known: {_known(workflow, announced.workflows)}"


def _sentence(kind: Kind, name: str, names: list[str]) -> str:
    return (
        f"no worker has announced a {kind} {name!r} yet; known: {_known(name, names)}; "
        f"{_WAITING[kind]} waits until one does"
    )


def _known(name: str, names: list[str]) -> str:
    """The likeliest first."""
    near = difflib.get_close_matches(name, names, n=3)
    known = [*near, *(each for each in names if each not in near)]
    more = [f"{len(known) - _TOLD_MAX} more"] if len(known) > _TOLD_MAX else []
    return ", ".join([*known[:_TOLD_MAX], *more]) or "none"
