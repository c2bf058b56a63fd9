"""Futures and tasks of workflow code.

Their hash is their creation number, salted per run, so that sets of them iterate alike in every process and Python
version. (Without salt the n-th tasks of all live runs would collide in asyncio's global registry.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, TypeVarTuple

from perdure._replay import compat, unawaited

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop

T = TypeVar("T")
U = TypeVar("U")
Ts = TypeVarTuple("Ts")
T_co = TypeVar("T_co", covariant=True)

Status = Literal["pending", "completed", "failed", "canceled"]
GroupOp = Literal["all", "all_or_fail"]

FUTURES_MAX: Final = 1 << 24
"""Of one run: their numbers are the low bits of their hashes. 16 million of them take days to make."""
SALT_BITS: Final = 36
"""With FUTURES_MAX under 61 bits, which Python keeps of the hash of an integer."""

_add_done_callback = asyncio.Future.add_done_callback
_remove_done_callback = asyncio.Future.remove_done_callback
_cancel = asyncio.Future.cancel


class Waited(Protocol[T_co]):
    """A future, as far as its type goes: covariant, so that futures of several types have one of their union."""

    def done(self) -> bool: ...

    def __await__(self) -> Generator[Any, Any, T_co]: ...


class Path:
    """A place in the program: the branch, and how many positions it has given out."""

    __slots__ = ("_count", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._count = 0

    def take(self) -> str:
        """The next position of this branch."""
        count = self._count
        self._count = count + 1
        return f"{self.text}.{count}" if self.text else str(count)


class ReplayFuture(asyncio.Future[T]):
    """A future of workflow code: asyncio's, with a hash that does not depend on memory."""

    __slots__ = ("seq",)

    def __init__(self, *, loop: ReplayLoop) -> None:
        self.seq = loop.next_seq()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.seq

    def __and__(self, other: Waited[U]) -> AllOf[tuple[T, U]]:
        return AllOf(_loop_of(self), (self, other), tuple)

    def __or__(self, other: Waited[U]) -> AnyOf[T | U]:
        return AnyOf(_loop_of(self), (self, other))

    def lost(self) -> None:
        """Another member of an `any_of` was first, so that perhaps nobody waits for this one any more."""

    def regained(self) -> None:
        """Somebody does, again."""


def _loop_of(future: asyncio.Future[Any]) -> ReplayLoop:
    return future._loop  # type: ignore[return-value]  # every future of a run is made for its loop


class Deferred(ReplayFuture[T]):
    """A command on its way: dispatched when it was made, awaitable for its outcome.

    Combine it with others by `&` and `|`. It is a future of asyncio: `gather`, `wait` and `shield` take it.
    """

    __slots__ = ("_decode", "_polled", "_seen", "_touched", "id", "kind", "name", "position")

    def __init__(
        self, loop: ReplayLoop, id: str, *, position: str, kind: str, name: str, decode: Callable[[Any], T] | None
    ) -> None:
        """Made by calling a task, a workflow or `timer`."""
        self.id = id
        """Of the task, child or timer."""
        self.kind = kind
        """What it is: "task", "child", "timer"."""
        self.name = name
        """Of the task or workflow."""
        self.position = position
        """Where in the code it was made, as `perdure show` prints it."""
        self._decode = decode
        self._seen = False
        self._touched = False
        self._polled = False
        super().__init__(loop=loop)

    @property
    def status(self) -> Status:
        """How it stands, without waiting: "pending", "completed", "failed" or "canceled"."""
        if not self.done():
            if not self._polled:
                self._polled = True
                self._touch()
            return "pending"
        if self.cancelled():
            return "canceled"
        return "failed" if compat.exception(self) is not None else "completed"

    @property
    def forgotten(self) -> bool:
        """Nobody has ever waited for it, or looked at it."""
        return not self._seen

    def cancel(self, msg: Any = None) -> bool:
        """Ask the engine to cancel it. It is canceled here at once; an outcome that comes later is dropped."""
        if self.done():
            return False
        loop = _loop_of(self)
        if not loop.evicting:
            loop.issue_cancel(self.position, self.id, self.name)
            self._touch()
        return _cancel(self, msg)

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Any = None) -> None:
        if not self._touched:
            self._touch()
        _add_done_callback(self, fn, context=context)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        if not self._touched:
            self._touch()
        return _remove_done_callback(self, fn)

    def lost(self) -> None:
        self._touch()

    def _touch(self) -> None:
        """Who waits for it may have changed: the next report looks at it again."""
        if not self._touched:
            self._touched = self._seen = True
            _loop_of(self).waits.touched.append(self)

    def __repr__(self) -> str:
        state = "pending" if not self.done() else "canceled" if self.cancelled() else "done"
        return f"<Deferred {self.kind} {self.name} at {self.position}: {state}>"


unawaited.refuse(Deferred)


class Regainable(ReplayFuture[T]):
    """One that rests while it has lost, until somebody waits for it again."""

    __slots__ = ("_lost",)

    def __init__(self, *, loop: ReplayLoop) -> None:
        self._lost = False
        super().__init__(loop=loop)

    def lost(self) -> None:
        self._lost = True

    def regained(self) -> None:
        self._lost = False

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Any = None) -> None:
        if self._lost:
            self.regained()
        _add_done_callback(self, fn, context=context)


class Combined(Regainable[T]):
    """A future that ends by others."""

    __slots__ = ("members",)

    def __init__(self, loop: ReplayLoop, members: Iterable[Any]) -> None:
        self.members: tuple[asyncio.Future[Any], ...] = tuple(members)
        super().__init__(loop=loop)

    def lost(self) -> None:
        super().lost()
        for member in _open(self.members):
            member.lost()

    def regained(self) -> None:
        super().regained()
        for member in _open(self.members):
            member.regained()


def _open(members: Iterable[asyncio.Future[Any]]) -> Iterator[ReplayFuture[Any]]:
    return (member for member in members if isinstance(member, ReplayFuture) and not member.done())


class Group(Combined[T]):
    """Stands for its members: who waits for it need not be woken by each of them."""

    __slots__ = ("_left", "op")

    def __init__(self, loop: ReplayLoop, members: Iterable[Any], op: GroupOp) -> None:
        super().__init__(loop, members)
        self.op: GroupOp = op
        self._left = len(self.members)


class AllOf(Group[T]):
    """Completed when all members are, with their values in order; failed as soon as one fails or is canceled."""

    __slots__ = ("_make",)

    def __init__(self, loop: ReplayLoop, members: Iterable[Any], make: Callable[[Iterable[Any]], T]) -> None:
        self._make = make
        super().__init__(loop, members, "all_or_fail")
        if not self.members:
            self.set_result(make(()))
        for member in self.members:
            member.add_done_callback(self._ended)

    def _ended(self, member: asyncio.Future[Any]) -> None:
        error = None if member.cancelled() else member.exception()  # looking at it counts as handling it
        if self.done():
            return
        self._left -= 1
        if member.cancelled():
            _cancel(self)
        elif error is not None:
            self.set_exception(error)
        elif not self._left:
            self.set_result(self._make(member.result() for member in self.members))

    def cancel(self, msg: Any = None) -> bool:
        """Cancel every member still open."""
        return _cancel_group(self, self.members, msg)

    def __and__(self: AllOf[tuple[*Ts]], other: Waited[U]) -> AllOf[tuple[*Ts, U]]:  # type: ignore[override]
        members = self.members if self._make is tuple else (self,)
        return AllOf(_loop_of(self), (*members, other), tuple)


class AnyOf(Combined[T]):
    """The outcome of the first member that ends.

    The others go on, until someone cancels them; but a `receive()` among them takes no signal until it is waited for
    again: `approvals.receive() | timer(60)` would otherwise, once timed out, swallow the next one.
    """

    __slots__ = ()

    def __init__(self, loop: ReplayLoop, members: Iterable[Any]) -> None:
        super().__init__(loop, members)
        if not self.members:
            raise ValueError("any_of() of nothing would never end")
        for member in self.members:
            member.add_done_callback(self._ended)

    def _ended(self, member: asyncio.Future[Any]) -> None:
        error = None if member.cancelled() else member.exception()
        if self.done():
            return
        for loser in _open(self.members):
            loser.lost()
        if member.cancelled():
            _cancel(self)
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(member.result())

    def cancel(self, msg: Any = None) -> bool:
        """Cancel every member still open."""
        return _cancel_group(self, self.members, msg)


def _cancel_group(group: asyncio.Future[Any], members: tuple[asyncio.Future[Any], ...], msg: Any) -> bool:
    if group.done():
        return False
    if not _loop_of(group).evicting:
        for member in members:
            member.cancel(msg)
    return _cancel(group, msg)


class Gathering(Group[list[Any]]):
    """What `asyncio.gather` gives in workflow code. Canceled, it ends when its members have."""

    __slots__ = ("_cancel_requested",)

    def __init__(self, loop: ReplayLoop, members: Iterable[Any], return_exceptions: bool) -> None:
        self._cancel_requested = False
        super().__init__(loop, members, "all" if return_exceptions else "all_or_fail")
        if not self.members:
            self.set_result([])
        ended = [member for member in self.members if member.done()]
        for member in self.members:
            if not member.done():
                member.add_done_callback(self._ended)
        for member in ended:
            self._ended(member)

    def _ended(self, member: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if member.cancelled() else member.exception()
        if self.done():
            return
        self._left -= 1
        if error is not None and self.op == "all_or_fail":
            self.set_exception(error)
        elif not self._left:
            if self._cancel_requested:
                self.set_exception(asyncio.CancelledError())
            else:
                self.set_result([_outcome(member) for member in self.members])

    def cancel(self, msg: Any = None) -> bool:
        """Cancel every member still open."""
        if self.done():
            return False
        if _loop_of(self).evicting:
            return _cancel(self, msg)
        for member in self.members:
            self._cancel_requested = member.cancel(msg) or self._cancel_requested
        return self._cancel_requested


def _outcome(future: asyncio.Future[Any]) -> Any:
    if future.cancelled():
        return asyncio.CancelledError()
    error = future.exception()
    return future.result() if error is None else error


class Branch(asyncio.Task[T]):
    """A concurrent part of a run. Commands issued in it have positions of their own."""

    __slots__ = ("context", "path", "seq")

    def __init__(self, coro: Any, *, loop: ReplayLoop, path: Path, **options: Any) -> None:
        # set first: an eager start runs the first step inside Task.__init__
        self.seq = loop.next_seq()
        self.path = path
        if options.get("name") is None:
            options["name"] = path.text or "main"  # asyncio's own names count over the whole process
        context = options.get("context")
        self.context = options["context"] = copy_context() if context is None else context
        super().__init__(coro, loop=loop, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.seq

    def __and__(self, other: Waited[U]) -> AllOf[tuple[T, U]]:
        return AllOf(_loop_of(self), (self, other), tuple)

    def __or__(self, other: Waited[U]) -> AnyOf[T | U]:
        return AnyOf(_loop_of(self), (self, other))
