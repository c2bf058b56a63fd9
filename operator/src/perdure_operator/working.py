"""A queue of keys: each is worked on by one task at a time, comes again by itself, and is tried again if it fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from prometheus_client import Counter, Gauge, Histogram

from perdure_operator.objects import Key
from perdure_operator.ports import Changed, Unavailable

log = logging.getLogger("perdure.operator")

COALESCED_S = 0.5
"""Events of one resource come in bursts: what comes within so much is one look."""
BACKOFF_S = 1.0
BACKOFF_MAX_S = 60.0
HASTE_S = 10.0
"""What wants to be looked at again so soon is in the midst of something, and does not wait behind what is at rest."""
SLOW_S = 5.0
"""What took longer waits for somebody who does not answer: from then on it waits with its like, and holds up no other.
A worker that does not answer takes less."""
JITTER = 0.25
"""Share by which pauses differ, so that hundreds of resources do not come at once."""

_LOOKS = Counter("perdure_operator_reconciles_total", "Looks at resources, by how they ended.", ["kind", "result"])
_SECONDS = Histogram("perdure_operator_reconcile_seconds", "How long a look took.", ["kind"])
_KEYS = Gauge("perdure_operator_resources", "Resources that are followed.")

Work = Callable[[Key], Awaitable[float | None]]
"""Returns the seconds until it should be done again; None: never, unless it is added again."""


class Working:
    """Until `run` is canceled."""

    def __init__(self, work: Work, concurrency: int, chance: random.Random) -> None:
        self._work = work
        self._chance = chance
        self._calm, self._hasty, self._slow = (asyncio.Semaphore(concurrency) for _ in range(3))
        self._urgent: set[Key] = set()
        self._wanted: dict[Key, asyncio.Event] = {}
        self._added: asyncio.Queue[Key] = asyncio.Queue()

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Have it looked at soon; if it is urgent, before hundreds at rest that are looked at after a start."""
        if urgent:
            self._urgent.add(key)
        if key not in self._wanted:
            self._wanted[key] = asyncio.Event()
            self._added.put_nowait(key)
            _KEYS.set(len(self._wanted))
        self._wanted[key].set()

    def followed(self) -> list[Key]:
        """All that are followed."""
        return list(self._wanted)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                key = await self._added.get()
                tasks.create_task(self._follow(key), name=f"{key.kind} {key.namespace}/{key.name}")

    async def _follow(self, key: Key) -> None:
        wanted = self._wanted[key]
        failures = 0
        pause: float | None = None
        slow = False
        while True:
            wanted.clear()
            urgent = key in self._urgent or (pause is not None and pause <= HASTE_S)
            self._urgent.discard(key)
            async with self._slow if slow else self._hasty if urgent else self._calm:
                begun = monotonic()
                pause, failed = await self._look(key)
            slow = monotonic() - begun > SLOW_S
            failures = failures + 1 if failed else 0
            if failed:
                pause = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(failures - 1, 10))
            if pause is None:
                if wanted.is_set():
                    continue
                del self._wanted[key]
                _KEYS.set(len(self._wanted))
                return
            await self._rest(wanted, pause * self._chance.uniform(1 - JITTER, 1 + JITTER))

    async def _rest(self, wanted: asyncio.Event, pause_s: float) -> None:
        coalesced = min(COALESCED_S, pause_s)
        await asyncio.sleep(coalesced)
        try:
            async with asyncio.timeout(pause_s - coalesced):  # `wait_for` of Python 3.11 may swallow a cancellation
                await wanted.wait()
        except TimeoutError:
            pass

    async def _look(self, key: Key) -> tuple[float | None, bool]:
        """Seconds until the next look, and whether this one failed."""
        begun = monotonic()
        try:
            pause = await self._work(key)
        except (Changed, Unavailable) as error:
            result = type(error).__name__.lower()
            level = logging.WARNING if isinstance(error, Unavailable) else logging.DEBUG  # a conflict is of every day
            log.log(level, "look again", extra={"action": f"look_{result}", "error": str(error), **_told(key)})
            _LOOKS.labels(key.kind, result).inc()
            return BACKOFF_S, isinstance(error, Unavailable)
        except Exception:
            log.exception("look failed", extra={"action": "look_failed", **_told(key)})
            _LOOKS.labels(key.kind, "failed").inc()
            return BACKOFF_S, True
        _LOOKS.labels(key.kind, "ok").inc()
        _SECONDS.labels(key.kind).observe(monotonic() - begun)
        return pause, False


def _told(key: Key) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "resource": key.name}
