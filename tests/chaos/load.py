"""Constant load by the API, and what was promised to it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from perdure import Client, Handle
from perdure.errors import AlreadyStarted, PerdureError, Refused, RunNotFound, Unavailable
from tests.chaos.app import RETENTION_S
from tests.chaos.facts import RunFacts, facts_of

_AGAIN_S = 0.5
_KINDS = ("hello", "sequence", "fan", "retried", "napping", "family", "Collector")
_WEIGHTS = (8, 3, 1, 3, 3, 2, 3)
_FAN = 100
_SIGNALS = 10


@dataclass
class Promise:
    """A run that was accepted, and what it must return."""

    workflow_id: str
    kind: str
    expected: Any
    accepted_at: float
    handle: Handle[Any]
    result: Any = None
    done_at: float = 0.0
    error: str = ""
    resent: Counter[int] = field(default_factory=Counter)
    """Signals that were sent once more, since nobody could say whether they had arrived."""
    facts: RunFacts | None = None
    """What its history says."""
    forgotten: bool = False
    """Its history was gone before anybody could read it: an outage took longer than its retention."""


class Load:
    """So many users, each of whom starts a run, waits for its end, and starts the next."""

    def __init__(self, client: Client, seed: int, users: int, *, first: int = 0) -> None:
        """`first`: from which number on runs are named, where others of this namespace have been."""
        self._client = client
        self._random = Random(seed)
        self._users = users
        self.promises: dict[str, Promise] = {}
        self._count = first
        self._closing = False

    async def run(self) -> None:
        """Until it is closed, and all that was started has ended."""
        async with asyncio.TaskGroup() as users:
            for _ in range(self._users):
                users.create_task(self._user(Random(self._random.random())))

    def close(self) -> None:
        """Start no more."""
        self._closing = True

    async def _user(self, random: Random) -> None:
        while not self._closing:
            kind = random.choices(_KINDS, _WEIGHTS)[0]
            self._count += 1
            workflow_id = f"{kind}-{self._count}"
            argument, expected = _task_of(kind, random)
            await self._start(workflow_id, kind, argument, expected)
            if kind == "Collector":
                await self._signal(workflow_id)
            await self._finish(self.promises[workflow_id])

    async def _start(self, workflow_id: str, kind: str, argument: int, expected: Any) -> None:
        unanswered = False
        while True:
            try:
                handle = await self._client.start(
                    kind, argument, id=workflow_id, conflict="use-existing", retention=RETENTION_S
                )
                break
            except Unavailable:
                unanswered = True
                await asyncio.sleep(_AGAIN_S)
            except AlreadyStarted:
                if not unanswered:
                    raise
                handle = self._client.handle(workflow_id)  # the try before started it, and it has ended since
                break
        self.promises[workflow_id] = Promise(workflow_id, kind, expected, time.time(), handle)

    async def _signal(self, workflow_id: str) -> None:
        handle = self._client.handle(workflow_id)
        for number in range(_SIGNALS):
            while True:
                try:
                    await handle.signal("values", number)
                    break
                except Unavailable:
                    self.promises[workflow_id].resent[number] += 1
                    await asyncio.sleep(_AGAIN_S)
                except (RunNotFound, Refused):
                    return  # the one before was recorded twice, or the run is over: its result tells

    async def _finish(self, promise: Promise) -> None:
        while not promise.done_at:
            try:
                promise.result = await promise.handle.result()
                promise.done_at = time.time()
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)
            except PerdureError as error:
                promise.error = f"{type(error).__name__}: {error}"
                promise.done_at = time.time()
        await self._inspect(promise)

    async def _inspect(self, promise: Promise) -> None:
        """Read the history before retention takes it."""
        while True:
            try:
                promise.facts = facts_of(await promise.handle.history())
                return
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)
            except PerdureError as error:
                if isinstance(error, RunNotFound) and time.time() - promise.accepted_at > RETENTION_S:
                    promise.forgotten = True
                else:
                    promise.error = promise.error or f"no history: {error}"
                return


def _task_of(kind: str, random: Random) -> tuple[int, Any]:
    number = random.randrange(1_000)
    match kind:
        case "hello" | "retried":
            return number, number + 1
        case "sequence":
            return number, number + 10
        case "fan":
            return _FAN, _FAN * (_FAN + 1) // 2
        case "napping":
            milliseconds = random.randrange(200, 4_000)
            return milliseconds, milliseconds
        case "family":
            return 3, 6
        case "Collector":
            return _SIGNALS, list(range(_SIGNALS))
        case _:
            raise AssertionError(kind)
