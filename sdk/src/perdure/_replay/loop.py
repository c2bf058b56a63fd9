"""The event loop of one run: asyncio's surface over recorded events.

Its time is the recorded time since the run's start; its timers are commands; what it cannot do, it explains.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any, Final, TypeVar

from perdure._replay import collector, compat
from perdure._replay.code import RunContext
from perdure._replay.commands import Commands
from perdure._replay.futures import FUTURES_MAX, SALT_BITS, Branch, Path, ReplayFuture
from perdure._replay.generators import Generators, let_go
from perdure._replay.handles import Ready, Timer
from perdure._replay.mailbox import Mailbox
from perdure._replay.refusals import Surface
from perdure._replay.waits import Waits
from perdure.errors import Blocked, Evicted, NotInWorkflow, PerdureError
from perdure_schemas.common import Failure

T = TypeVar("T")

FOREVER_SECONDS: Final = 100 * 366 * 86_400
"""A longer delay (`math.inf` is one) is no timer: nobody will be there, and its due time might have no number."""


class ReplayLoop(Commands, Surface):
    """One run's loop. Entered for each turn, on the workflow thread."""

    def __init__(self, context: RunContext, *, match_args: bool, failure: Callable[[BaseException], Failure]) -> None:
        Commands.__init__(self, context, match_args=match_args, failure=failure)
        self.context = context
        self.started_at = context.started_at
        self.now_ms = context.started_at
        salt = int.from_bytes(blake2b(context.run_id.encode(), digest_size=8).digest(), "big") % (1 << SALT_BITS)
        self._seq = salt * FUTURES_MAX
        self._seq_max = self._seq + FUTURES_MAX - 1
        self.ready: list[Ready] = []
        """A list where others take a deque: an empty one is a tenth of its size, and there is one per live run."""
        self.branches: dict[int, Branch[Any]] = {}
        """By creation number; asyncio's own registry is weak."""
        self.failed: list[Branch[Any]] = []
        """Branches that ended with an exception."""
        self.fault: BaseException | None = None
        """What ends the turn as stuck, whatever user code does with it."""
        self.waits = Waits()
        self.mailboxes: dict[str, Mailbox] = {}
        self.generators = Generators()

    # --- running ------------------------------------------------------------------------------------

    def next_seq(self) -> int:
        """The number of a new future, and its hash."""
        if self.querying:
            self.refuse()
        seq = self._seq + 1
        if seq > self._seq_max:
            raise self.noted(
                PerdureError(
                    f"a run can make {FUTURES_MAX:,} futures (tasks, timers, branches, waits) and this one has: "
                    "go on as a new run by continue_as_new() well before."
                )
            )
        self._seq = seq
        return seq

    def drain(self) -> None:
        """Run callbacks until none is ready."""
        while self.ready:
            ready, self.ready = self.ready, []
            for handle in ready:
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except BaseException as error:  # SystemExit too: it is the worker's life, not the workflow's
                    self.noted(error)

    def noted(self, error: BaseException) -> BaseException:
        """The first fault of a turn decides how it ends, even if user code swallows the error."""
        if self.fault is None and not self.evicting and not isinstance(error, Evicted):
            self.fault = error
        return error

    def mailbox(self, channel: str) -> Mailbox:
        box = self.mailboxes.get(channel)
        if box is None:
            box = self.mailboxes[channel] = Mailbox(self, channel)
        return box

    def spawn(self, coro: Any, path: Path, **options: Any) -> Branch[Any]:
        """A branch at a place of its own."""
        try:
            branch: Branch[Any] = Branch(coro, loop=self, path=path, **options)
        except TypeError:
            if isinstance(coro, asyncio.Future):
                raise TypeError(
                    f"create_task() takes a coroutine; {coro!r} runs already: await it, or combine it with others"
                ) from None
            raise
        if not branch.done():
            self.branches[branch.seq] = branch
            branch.add_done_callback(self._branch_ended)
        return branch

    def _branch_ended(self, branch: Any) -> None:
        self.branches.pop(branch.seq, None)
        error = compat.exception(branch)
        if error is None:
            return
        if isinstance(error, (Blocked, KeyboardInterrupt, SystemExit)):
            self.noted(error)
        self.failed.append(branch)

    # --- asyncio's surface --------------------------------------------------------------------------

    def time(self) -> float:
        return (self.now_ms - self.started_at) / 1000

    def create_future(self) -> asyncio.Future[Any]:
        return ReplayFuture(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        if self.evicting or self._aside is not None:
            coro.close()
            self.refuse()
        return self.spawn(coro, Path(self.path().take()), **options)

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Ready:
        handle = Ready(callback, args, context)
        if self._aside is not None:
            self.refuse()
        if not self.evicting:
            self.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        return self._timer(delay, callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        return self._timer(when - self.time(), callback, args, context)

    def _timer(self, delay: float, callback: Any, args: tuple[Any, ...], context: contextvars.Context | None) -> Timer:
        timer = Timer(callback, args, context, when=self.time() + delay)
        if self.evicting or delay > FOREVER_SECONDS:
            return timer
        delay_us = round(delay * 1e6)
        if self._aside is not None:
            self.refuse()
        if delay_us <= 0:
            self.ready.append(timer)
            return timer
        position, id = self.timer_command(self.now_ms + -(-delay_us // 1000), delay_us)
        timer.start(self, position, id)
        self.pending[id] = timer
        self.waits.add_leaf(id)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """asyncio found an error that nobody handles; those of branches are found by us, in time."""
        error = context.get("exception")
        if "task" not in context and "future" not in context and isinstance(error, BaseException):
            self.noted(error)


class Entered:
    """While it lasts, a run's loop is the running one of this thread, and no finalizer runs amid its code."""

    __slots__ = ("_loop", "_outer")

    def __init__(self, loop: ReplayLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        collector.hold()
        self._outer = compat.enter(self._loop, self._loop.generators.keep, let_go)

    def __exit__(self, *_: object) -> None:
        compat.leave(self._outer)
        collector.let_go()


def running() -> ReplayLoop | None:
    """The loop of the run whose code is executing on this thread."""
    loop = compat.running_loop()
    return loop if type(loop) is ReplayLoop else None


def current(what: str) -> ReplayLoop:
    """The same, or NotInWorkflow about `what`."""
    loop = compat.running_loop()
    if type(loop) is ReplayLoop:
        return loop
    raise NotInWorkflow(f"{what} is only possible inside a workflow.")
