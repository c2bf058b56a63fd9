"""Futures and tasks of workflow code.

Their hash is their creation number, salted per run, so that sets of them iterate alike in every process and Python
version. (Without salt the n-th tasks of all live runs would collide in asyncio's global registry.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, TypeVarTuple, Unpack

from perdure._replay import compat

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop

T = TypeVar("T")
U = TypeVar("U")
Ts = TypeVarTuple("Ts")

Status = Literal["pending", "completed", "failed", "canceled"]

_add_done_callback = asyncio.Future.add_done_callback
_remove_done_callback = asyncio.Future.remove_done_callback
_cancel = asyncio.Future.cancel


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

    def __eq__(self, other: object) -> bool:
        return self is other

    def __and__(self, other: asyncio.Future[U]) -> AllOf[tuple[T, U]]:
        return AllOf(_loop_of(self), (self, other), tuple)

    def __or__(self, other: asyncio.Future[U]) -> AnyOf[T | U]:
        return AnyOf(_loop_of(self), (self, other))


def _loop_of(future: asyncio.Future[Any]) -> ReplayLoop:
    return future._loop  # type: ignore[return-value]  # every future of a run is made for its loop


class Deferred(ReplayFuture[T]):
    """A command on its way: dispatched when it was made, awaitable for its outcome.

    Combine it with others by `&` and `|`. It is a future of asyncio: `gather`, `wait` and `shield` take it.
    """

    __slots__ = ("_decode", "_polled", "_touched", "id", "kind", "name", "position")

    def __init__(
        self, loop: ReplayLoop, id: str, *, position: str, kind: str, name: str, decode: Callable[[Any], T] | None
    ) -> None:
        self.id = id
        self.kind = kind
        self.name = name
        self.position = position
        self._decode = decode
        self._touched = False
        self._polled = False
        super().__init__(loop=loop)

    @property
    def status(self) -> Status:
        """How it stands, without waiting."""
        if not self.done():
            if not self._polled:
                self._polled = True
                self._touch()
            return "pending"
        if self.cancelled():
            return "canceled"
        return "failed" if compat.exception(self) is not None else "completed"

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

    def _touch(self) -> None:
        """Who waits for it may have changed: the next report looks at it again."""
        if not self._touched:
            self._touched = True
            _loop_of(self).waits.touched.append(self)

    def __repr__(self) -> str:
        state = "pending" if not self.done() else "canceled" if self.cancelled() else "done"
        return f"<Deferred {self.kind} {self.name} at {self.position}: {state}>"


class AllOf(ReplayFuture[T]):
    """Completed when all members are, with their values in order; failed as soon as one fails or is canceled."""

    __slots__ = ("_left", "_make", "members")

    def __init__(
        self, loop: ReplayLoop, members: Iterable[asyncio.Future[Any]], make: Callable[[Iterable[Any]], T]
    ) -> None:
        self.members = tuple(members)
        self._make = make
        super().__init__(loop=loop)
        self._left = len(self.members)
        if not self._left:
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

    def __and__(self: AllOf[tuple[Unpack[Ts]]], other: asyncio.Future[U]) -> AllOf[tuple[Unpack[Ts], U]]:  # type: ignore[override]
        if self._make is not tuple:
            return AllOf(_loop_of(self), (self, other), tuple)  # type: ignore[arg-type]
        return AllOf(_loop_of(self), (*self.members, other), tuple)  # type: ignore[arg-type]


class AnyOf(ReplayFuture[T]):
    """The outcome of the first member that ends. The others go on, until someone cancels them."""

    __slots__ = ("members",)

    def __init__(self, loop: ReplayLoop, members: Iterable[asyncio.Future[Any]]) -> None:
        self.members = tuple(members)
        super().__init__(loop=loop)
        if not self.members:
            raise ValueError("any_of() of nothing would never end")
        for member in self.members:
            member.add_done_callback(self._ended)

    def _ended(self, member: asyncio.Future[Any]) -> None:
        error = None if member.cancelled() else member.exception()
        if self.done():
            return
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


class Branch(asyncio.Task[T], Generic[T]):
    """A concurrent part of a run. Commands issued in it have positions of their own."""

    def __init__(self, coro: Any, *, loop: ReplayLoop, path: Path, **options: Any) -> None:
        # set first: an eager start runs the first step inside Task.__init__
        self.seq = loop.next_seq()
        self.path = path
        if options.get("name") is None:
            options["name"] = path.text or "main"  # asyncio's own names count over the whole process
        super().__init__(coro, loop=loop, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.seq

    def __eq__(self, other: object) -> bool:
        return self is other

    def __and__(self, other: asyncio.Future[U]) -> AllOf[tuple[T, U]]:
        return AllOf(_loop_of(self), (self, other), tuple)

    def __or__(self, other: asyncio.Future[U]) -> AnyOf[T | U]:
        return AnyOf(_loop_of(self), (self, other))


class GatheringFuture(asyncio.tasks._GatheringFuture):  # type: ignore[name-defined,misc]
    """What `asyncio.gather` returns in workflow code, with our hash."""

    def __init__(self, children: Any, *, loop: ReplayLoop) -> None:
        self.seq = loop.next_seq()
        super().__init__(children, loop=loop)

    def __hash__(self) -> int:
        return self.seq

    def __eq__(self, other: object) -> bool:
        return self is other

    def __and__(self, other: asyncio.Future[U]) -> AllOf[tuple[Any, U]]:
        return AllOf(_loop_of(self), (self, other), tuple)

    def __or__(self, other: asyncio.Future[U]) -> AnyOf[Any]:
        return AnyOf(_loop_of(self), (self, other))
