"""A clock that waits for nobody, and the event loop of async tasks on it."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import selectors
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from contextvars import Context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple, Unpack

from perdure._testing.waits import Wait, helpers, waits
from perdure._worker.user_loop import Watchdog
from perdure_schemas.messages import RunTask

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RESOLUTION_SECONDS = 1e-5
"""What lies closer is due at once: more than the error of a float of some years, less than anybody's sleep."""
REST_SECONDS = 0.2
"""Of real time in which code that is not mocked must have done nothing before the clock moves on, where somebody real
may be about to tell it something."""
THREAD_SECONDS = 10.0
"""The same, where a thread most likely works for it, as that of a database's driver does: no query that a test makes
takes longer. An end there must be: the thread may be idle."""


class VirtualClock:
    """Stands still until it is set."""

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self._now = start_ms

    def now(self) -> int:
        """Epoch milliseconds."""
        return self._now

    def elapsed(self) -> float:
        """Seconds since the start."""
        return (self._now - self.start_ms) / 1000

    def advance_to(self, moment_ms: int) -> None:
        """Never goes back."""
        self._now = max(self._now, moment_ms)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its timers are due by the clock; sockets and threads are real. Runs in a thread of its own."""

    def __init__(
        self,
        clock: VirtualClock,
        rested: Callable[[], None],
        real: Callable[[], bool],
        before: Collection[threading.Thread],
    ) -> None:
        """Threads that ran `before` work for nobody here.

        `rested` is called in the loop's thread, whenever nothing is left to run. `real` tells whether code runs that is
        not mocked.
        """
        self._clock = clock
        self._rested = rested
        self._real = real
        self._before = before
        self._lock = threading.Lock()
        """Held to change `resting`: what another thread sends must not be overlooked."""
        self.resting = False
        """Nothing can run before time passes, or somebody outside sends something."""
        self.next_due: int | None = None
        """While it rests: when its next timer is due, in epoch milliseconds; one that is far away, a day at most."""
        self.rested_at = 0.0
        """Of `time.monotonic`: when it last did anything."""
        self.patience = 0.0
        """While it rests: for how long it must have done nothing before the clock may move on, in real seconds."""
        self.outside_since = 0.0
        """Since when `patience` has been without end, of `time.monotonic`, less what the clock moved on since."""
        self._stirred = True
        """Something was to be done since it last rested."""
        self._jobs = 0
        self._released_at: float | None = None
        self._waits = _Waits(self._wait)
        super().__init__(self._waits)
        self._clock_resolution = RESOLUTION_SECONDS

    def time(self) -> float:
        real = 0.0 if self._released_at is None else time.monotonic() - self._released_at
        return self._clock.elapsed() + real

    def _find_patience(self) -> float:
        """Without end where a thread, a process or a socket is sure to be waited for."""
        if self._jobs:
            return math.inf
        sockets = len(self._waits.get_map()) > 1  # one is the loop's own
        if not (sockets or self._real()):
            return 0.0
        wait = waits(self)
        if wait is Wait.TIME:  # a connection that is kept open, or a thread that is asked now and then
            return REST_SECONDS if sockets or helpers(self._before) else 0.0
        if sockets:
            return math.inf
        return THREAD_SECONDS if wait is Wait.FUTURE and helpers(self._before) else REST_SECONDS

    def release(self) -> None:
        """Go on by real time."""
        self._released_at = time.monotonic()
        self.wake()

    def wake(self) -> None:
        """Look at the clock."""
        if not self.is_closed():
            self.call_soon_threadsafe(lambda: None)

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        with self._lock:
            self.resting = False
            if not isinstance(getattr(callback, "__self__", None), Watchdog):  # it only asks whether the loop lives
                self._stirred = True
            return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        done = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        done.add_done_callback(self._job_done)
        return done

    def _job_done(self, done: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def _wait(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """In place of `select`: until something is to be done, whatever the loop's next timer is."""
        if self._released_at is not None or (timeout is not None and timeout <= 0):
            return self._waits.really(timeout)
        patience = self._find_patience()
        with self._lock:
            events = self._waits.really(0)
            if events:
                return self._seen(events)
            now = self._clock.now()
            due = None if timeout is None else now + max(math.ceil((timeout - RESOLUTION_SECONDS / 2) * 1000), 1)
            if self._stirred:
                self._stirred, self.rested_at = False, time.monotonic()
            if patience == math.inf and self.patience < math.inf:
                self.outside_since = time.monotonic()
            self.next_due, self.resting, self.patience = due, True, patience
        self._rested()
        events = self._waits.really(None)
        self.resting = False
        return self._seen(events)

    def _seen(self, events: list[tuple[selectors.SelectorKey, int]]) -> list[tuple[selectors.SelectorKey, int]]:
        """Whoever wakes the loop by its own socket has said himself whether there is something to be done."""
        if any(key.fileobj is not self._ssock for key, _ in events):  # type: ignore[attr-defined]
            self._stirred = True
        return events


class _Waits(selectors.DefaultSelector):
    def __init__(self, wait: Callable[[float | None], list[tuple[selectors.SelectorKey, int]]]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._wait(timeout)

    def really(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout)


class VirtualAlarm:
    """Made by `VirtualTime.call_later`."""

    __slots__ = ("_args", "_callback", "canceled")

    def __init__(self, callback: Callable[..., None], args: tuple[object, ...]) -> None:
        self._callback = callback
        self._args = args
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True

    def ring(self) -> None:
        self._callback(*self._args)


class VirtualTime:
    """The `TaskTime` of one worker: that of the clock."""

    def __init__(
        self,
        clock: VirtualClock,
        *,
        wake: Callable[[], None],
        mocked: Collection[str],
        before: Collection[threading.Thread],
    ) -> None:
        """`wake` is called, in any thread, when its tasks have nothing left to do. `before`: of `VirtualLoop`."""
        self._clock = clock
        self._wake = wake
        self._mocked = mocked
        self._before = before
        self._loop: VirtualLoop | None = None
        self._alarms: list[tuple[int, int, VirtualAlarm]] = []
        self._numbers = count()
        self._jumped: list[Callable[[], None]] = []
        self.running: dict[str, RunTask] = {}
        """Attempts of async tasks that have begun and have no answer, by their id."""
        self.real: set[str] = set()
        """Ids of those that are not mocked."""

    def time(self) -> float:
        return self._clock.elapsed()

    def call_later(self, seconds: float, callback: Callable[..., None], *args: object) -> VirtualAlarm:
        alarm = VirtualAlarm(callback, args)
        moment = self._clock.now() + math.ceil(seconds * 1000)
        heapq.heappush(self._alarms, (moment, next(self._numbers), alarm))
        return alarm

    def new_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = VirtualLoop(self._clock, self._wake, lambda: bool(self.real), self._before)
        return self._loop

    def begun(self, run: RunTask) -> None:
        self.running[run.attempt_id] = run
        if run.name not in self._mocked:
            self.real.add(run.attempt_id)

    def ended(self, run: RunTask) -> None:
        self.running.pop(run.attempt_id, None)
        self.real.discard(run.attempt_id)

    def on_jump(self, callback: Callable[[], None]) -> None:
        self._jumped.append(callback)

    @property
    def busy(self) -> bool:
        """Whether something runs here."""
        return self._loop is not None and not self._loop.resting

    @property
    def lingers(self) -> bool:
        """Whether it has not yet done nothing for long enough."""
        loop = self._loop
        return loop is not None and bool(self.real) and time.monotonic() - loop.rested_at < loop.patience < math.inf

    def left(self) -> float:
        """Real seconds until real time has brought the next of its own time-outs; 0 if it waits for nobody real."""
        loop = self._loop
        if loop is None or not self.running or not loop.resting or loop.patience < math.inf:
            return 0.0
        due = self.next_due()
        if due is None:
            return math.inf
        return max(0.0, loop.outside_since + (due - self._clock.now()) / 1000 - time.monotonic())

    def next_due(self) -> int | None:
        """When time next brings something, in epoch milliseconds. What user code left behind is nothing."""
        while self._alarms and self._alarms[0][2].canceled:
            heapq.heappop(self._alarms)
        alarm = self._alarms[0][0] if self._alarms else None
        timer = self._loop.next_due if self._loop is not None and self.running else None
        return min((due for due in (alarm, timer) if due is not None), default=None)

    def jumped(self, milliseconds: int) -> None:
        """Do what is due: the clock was moved on by so much."""
        if self._loop is not None:
            self._loop.outside_since += milliseconds / 1000
        for callback in self._jumped:
            callback()
        while self._alarms and self._alarms[0][0] <= self._clock.now():
            alarm = heapq.heappop(self._alarms)[2]
            if not alarm.canceled:
                alarm.ring()
        if self._loop is not None:
            self._loop.wake()

    def release(self) -> None:
        """Let the tasks end by real time."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.release()


class TaskTimes:
    """What the async tasks of all workers of an environment live by."""

    def __init__(self, rested: asyncio.Event) -> None:
        """`rested` is set, on its own loop, when tasks have nothing left to do."""
        self._rested = rested
        self._times: list[VirtualTime] = []
        self._before = frozenset(threading.enumerate())
        self.mocked: set[str] = set()
        """Tasks, by name."""

    def __iter__(self) -> Iterator[VirtualTime]:
        return iter(self._times)

    def of_worker(self, clock: VirtualClock) -> VirtualTime:
        """That of one more. To be called on the loop of `rested`."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the test is over
                loop.call_soon_threadsafe(self._rested.set)

        self._times.append(VirtualTime(clock, wake=wake, mocked=self.mocked, before=self._before))
        return self._times[-1]

    def running(self) -> list[RunTask]:
        """Attempts that have begun and have no answer."""
        return [run for lived in self._times for run in lived.running.values()]

    def real(self) -> bool:
        """Whether any of these is of a task that is not mocked."""
        return any(lived.real for lived in self._times)

    def busy(self) -> bool:
        """Whether one does something."""
        return any(lived.busy for lived in self._times)

    def left(self) -> float:
        """Real seconds that must pass before the clock may move on, however little: somebody real is at work."""
        return max((lived.left() for lived in self._times), default=0.0)

    def linger(self) -> bool:
        """Whether one may still be told something by somebody real."""
        return self.left() > 0 or any(lived.lingers for lived in self._times)
