"""The event loop of one run: asyncio's surface over recorded events.

Its time is the recorded time since the run's start; its timers are commands; what it cannot do, it explains.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any, NoReturn, TypeVar

from perdure._replay import compat
from perdure._replay.code import RunContext
from perdure._replay.commands import Commands
from perdure._replay.futures import Branch, Path, ReplayFuture
from perdure._replay.history import user_line
from perdure._replay.mailbox import Mailbox
from perdure._replay.waits import Waits
from perdure.errors import Blocked, Evicted, NotInWorkflow
from perdure_schemas.common import Failure

T = TypeVar("T")

_CLOSE_TRIES_MAX = 10
"""How often a coroutine that awaits in a `finally` is closed: each try leaves one `try` block."""


class Ready(asyncio.Handle):
    """A callback whose turn comes. asyncio's own Handle formats debug information at each creation."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context if context is not None else contextvars.copy_context()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def __repr__(self) -> str:
        return f"<Ready {self._callback!r}>"


class Timer(Ready):
    """A durable timer with a callback. Canceling it cancels the command."""

    __slots__ = ("_replay", "_when", "id", "position")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None, *, when: float
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when
        self._replay: ReplayLoop | None = None
        self.id = ""
        self.position = ""

    def start(self, loop: ReplayLoop, position: str, id: str) -> None:
        self._replay, self.position, self.id = loop, position, id

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        if self._cancelled:
            return
        self._cancelled = True
        loop = self._replay
        if loop is not None and self.id in loop.pending and not loop.evicting:
            loop.waits.remove(self.id)
            loop.issue_cancel(self.position, self.id, "")


class ReplayLoop(Commands, asyncio.AbstractEventLoop):
    """One run's loop. Entered for each turn, on the workflow thread."""

    def __init__(self, context: RunContext, *, match_args: bool, failure: Callable[[BaseException], Failure]) -> None:
        Commands.__init__(self, context, match_args=match_args, failure=failure)
        self.context = context
        self.started_at = context.started_at
        self.now_ms = context.started_at
        salt = int.from_bytes(blake2b(context.run_id.encode(), digest_size=4).digest(), "big")
        self._seq = (salt & 0x7FFF_FFFF) << 24
        self._ready: deque[Ready] = deque()
        self.branches: dict[int, Branch[Any]] = {}
        """By creation number; asyncio's own registry is weak."""
        self.failed: list[Branch[Any]] = []
        """Branches that ended with an exception."""
        self.fault: BaseException | None = None
        """What ends the turn as stuck, whatever user code does with it."""
        self.waits = Waits()
        self.mailboxes: dict[str, Mailbox] = {}
        self._generators: dict[int, Any] = {}

    # --- running ------------------------------------------------------------------------------------

    def next_seq(self) -> int:
        seq = self._seq + 1
        self._seq = seq
        return seq

    def enter(self) -> compat.Outer:
        return compat.enter(self, self._keep_generator, _drop_generator)

    def _keep_generator(self, generator: Any) -> None:
        """Strongly, so that its end is ours to choose and not the garbage collector's."""
        generators = self._generators
        if len(generators) > 2 * len(self.branches) + 16:  # ended ones have no frame
            self._generators = generators = {k: g for k, g in generators.items() if g.ag_frame is not None}
        generators[id(generator)] = generator

    def drain(self) -> None:
        """Run callbacks until none is ready."""
        ready = self._ready
        while ready:
            handle = ready.popleft()
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

    def fire(self, timer: Timer) -> None:
        """Its time has come."""
        if not timer._cancelled:
            self._ready.append(timer)

    def mailbox(self, channel: str) -> Mailbox:
        box = self.mailboxes.get(channel)
        if box is None:
            box = self.mailboxes[channel] = Mailbox()
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

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return ReplayFuture(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        if self.evicting:
            coro.close()
            raise Evicted("this run is being closed: no branch can be started any more")
        return self.spawn(coro, Path(self.path().take()), **options)

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Ready:
        handle = Ready(callback, args, context)
        if not self.evicting:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        return self._timer(round(delay * 1e6), callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        return self._timer(round((when - self.time()) * 1e6), callback, args, context)

    def _timer(self, delay_us: int, callback: Any, args: tuple[Any, ...], context: contextvars.Context | None) -> Timer:
        timer = Timer(callback, args, context, when=self.time() + delay_us / 1e6)
        if self.evicting:
            return timer
        if delay_us <= 0:
            self._ready.append(timer)
            return timer
        position, id = self.timer_command(self.now_ms + -(-delay_us // 1000), delay_us)
        timer.start(self, position, id)
        self.pending[id] = timer
        self.waits.add_leaf(id)
        return timer

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """asyncio found an error that nobody handles; those of branches are found by us, in time."""
        error = context.get("exception")
        if "task" not in context and "future" not in context and isinstance(error, BaseException):
            self.noted(error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        return None

    # --- the end ------------------------------------------------------------------------------------

    def close_all(self) -> None:
        """Close every suspended frame here and now, refusing every call of the SDK.

        `finally` blocks and `except BaseException` run up to their first such call. Nothing can come out of them.
        """
        self.evicting = True
        self._ready.clear()
        for waited in list(self.pending.values()):
            waited.cancel()  # drops callbacks, which breaks the cycle of task and future
        for box in self.mailboxes.values():
            box.close()
        for branch in list(self.branches.values()):
            waiter = compat.waiter(branch)
            if waiter is not None and not isinstance(waiter, asyncio.Task):
                waiter.cancel()
            _close(branch)
            compat.silence(branch)
        for branch in self.failed:
            compat.silence(branch)
        self.branches.clear()
        self.failed.clear()
        self.pending.clear()
        self._generators.clear()
        self._ready.clear()
        self.waits.close()


def _drop_generator(_: Any) -> None:
    """Finalizing an asynchronous generator would run user code at an arbitrary time: let it go."""


def _close(branch: Branch[Any]) -> None:
    coro: Any = branch.get_coro()
    for _ in range(_CLOSE_TRIES_MAX):
        try:
            coro.close()
            return
        except RuntimeError:  # "coroutine ignored GeneratorExit": it awaited in a finally
            continue
        except BaseException:  # raised by user code while it is closed: nobody is there to take it
            return


def _refusal(name: str) -> Any:
    def refuse(self: ReplayLoop, *_args: Any, **_options: Any) -> NoReturn:
        raise self.noted(
            NotInWorkflow(
                f"{user_line()}: {name}() does I/O or leaves the workflow's thread, so it would come out differently in "
                "replay. Do it in a @task; for something quick and local, inline(fn)."
            )
        )

    refuse.__name__ = name
    return refuse


for _name in [
    "run_in_executor",
    "create_connection",
    "create_server",
    "getaddrinfo",
    "getnameinfo",
    "create_datagram_endpoint",
    "create_unix_connection",
    "create_unix_server",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
    "sock_sendfile",
    "subprocess_exec",
    "subprocess_shell",
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "add_signal_handler",
    "remove_signal_handler",
    "connect_read_pipe",
    "connect_write_pipe",
    "sendfile",
    "start_tls",
    "connect_accepted_socket",
    "run_forever",
    "run_until_complete",
    "stop",
    "close",
    "set_default_executor",
    "shutdown_default_executor",
    "set_debug",
    "call_soon_threadsafe",
    "set_task_factory",
    "set_exception_handler",
]:
    setattr(ReplayLoop, _name, _refusal(_name))


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
