"""What workflow code calls, beside tasks, children and plain asyncio."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random as _random
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, MutableMapping
from typing import Any, Generic, NoReturn, TypeVar, overload

from perdure import convert
from perdure._duration import Duration, milliseconds
from perdure._names import check_text
from perdure._replay.code import RunContext
from perdure._replay.commands import digest
from perdure._replay.futures import AllOf, AnyOf, Branch, Deferred, Waited
from perdure._replay.loop import current, running
from perdure._replay.mailbox import Receipt
from perdure.errors import ContinueAsNew, DefinitionError, SerializationError
from perdure_schemas.common import NULL, BuildPolicy, Payload

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")
F = TypeVar("F", bound="asyncio.Future[Any]")

sleep = asyncio.sleep
"""A durable timer: `asyncio.sleep` itself, which in a workflow may last a year."""


def branch(coro: Coroutine[Any, Any, T]) -> Branch[T]:
    """Run a coroutine beside the others: positions inside it are its own. Awaitable, with `&` and `|`."""
    loop = current("branch()")
    task = loop.create_task(coro)
    assert isinstance(task, Branch)
    return task


@overload
def all_of(a: Waited[T1], b: Waited[T2], /) -> AllOf[tuple[T1, T2]]: ...
@overload
def all_of(a: Waited[T1], b: Waited[T2], c: Waited[T3], /) -> AllOf[tuple[T1, T2, T3]]: ...
@overload
def all_of(a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], /) -> AllOf[tuple[T1, T2, T3, T4]]: ...
@overload
def all_of(
    a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], e: Waited[T5], /
) -> AllOf[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def all_of(
    a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], e: Waited[T5], f: Waited[T6], /
) -> AllOf[tuple[T1, T2, T3, T4, T5, T6]]: ...
@overload
def all_of(
    a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], e: Waited[T5], f: Waited[T6], g: Waited[T7], /
) -> AllOf[tuple[T1, T2, T3, T4, T5, T6, T7]]: ...
@overload
def all_of(
    a: Waited[T1],
    b: Waited[T2],
    c: Waited[T3],
    d: Waited[T4],
    e: Waited[T5],
    f: Waited[T6],
    g: Waited[T7],
    h: Waited[T8],
    /,
) -> AllOf[tuple[T1, T2, T3, T4, T5, T6, T7, T8]]: ...
@overload
def all_of(*members: Waited[T]) -> AllOf[tuple[T, ...]]: ...
@overload
def all_of(members: Iterable[Waited[T]], /) -> AllOf[list[T]]: ...
def all_of(*members: Any) -> AllOf[Any]:
    """Everything, in order. Fails as soon as one fails; canceling it cancels what is still open.

    Takes futures, or one iterable of them; `a & b & c` is the same for any number of types.
    """
    loop = current("all_of()")
    if len(members) == 1 and not isinstance(members[0], asyncio.Future):
        return AllOf(loop, _futures(members[0], "all_of()"), list)
    return AllOf(loop, _futures(members, "all_of()"), tuple)


@overload
def any_of(a: Waited[T1], b: Waited[T2], /) -> AnyOf[T1 | T2]: ...
@overload
def any_of(a: Waited[T1], b: Waited[T2], c: Waited[T3], /) -> AnyOf[T1 | T2 | T3]: ...
@overload
def any_of(a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], /) -> AnyOf[T1 | T2 | T3 | T4]: ...
@overload
def any_of(
    a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], e: Waited[T5], /
) -> AnyOf[T1 | T2 | T3 | T4 | T5]: ...
@overload
def any_of(
    a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], e: Waited[T5], f: Waited[T6], /
) -> AnyOf[T1 | T2 | T3 | T4 | T5 | T6]: ...
@overload
def any_of(
    a: Waited[T1], b: Waited[T2], c: Waited[T3], d: Waited[T4], e: Waited[T5], f: Waited[T6], g: Waited[T7], /
) -> AnyOf[T1 | T2 | T3 | T4 | T5 | T6 | T7]: ...
@overload
def any_of(
    a: Waited[T1],
    b: Waited[T2],
    c: Waited[T3],
    d: Waited[T4],
    e: Waited[T5],
    f: Waited[T6],
    g: Waited[T7],
    h: Waited[T8],
    /,
) -> AnyOf[T1 | T2 | T3 | T4 | T5 | T6 | T7 | T8]: ...
@overload
def any_of(*members: Waited[T]) -> AnyOf[T]: ...
@overload
def any_of(members: Iterable[Waited[T]], /) -> AnyOf[T]: ...
def any_of(*members: Any) -> AnyOf[Any]:
    """Whatever ends first. Takes futures, or one iterable of them; `a | b | c` is the same.

    The others are not canceled: they run on, may be awaited later, and are canceled by `.cancel()`, or when the run
    ends. A `receive()` among them takes no signal any more, unless it is waited for again. Canceling the `any_of` while
    it waits cancels them all.
    """
    loop = current("any_of()")
    if len(members) == 1 and not isinstance(members[0], asyncio.Future):
        return AnyOf(loop, _futures(members[0], "any_of()"))
    return AnyOf(loop, _futures(members, "any_of()"))


def _futures(members: Any, what: str) -> list[Any]:
    """Raises TypeError unless all are futures."""
    found = list(members) if isinstance(members, Iterable) else [members]
    for member in found:
        if not isinstance(member, asyncio.Future):
            raise TypeError(
                f"{what} takes futures, such as calls of tasks and timer(), or one iterable of them, not "
                f"{member!r:.80}. Of a coroutine, branch(...) makes one."
            )
    return found


async def completed(members: Iterable[F]) -> AsyncIterator[F]:
    """The members in the order in which they end; one step each, however many there are."""
    current("completed()")
    ended: asyncio.Queue[F] = asyncio.Queue()
    count = 0
    for member in members:
        count += 1
        member.add_done_callback(ended.put_nowait)
    for _ in range(count):
        yield await ended.get()


def timer(when: Duration | dt.datetime) -> Deferred[None]:
    """A durable timer that combines with `&` and `|`. A number is seconds; a datetime must carry its zone."""
    loop = current("timer()")
    if isinstance(when, dt.datetime):
        if when.tzinfo is None:
            raise ValueError("timer() needs a datetime with a time zone, such as datetime(..., tzinfo=UTC).")
        return loop.issue_timer(round(when.timestamp() * 1000))
    return loop.issue_timer(loop.now_ms + milliseconds(when))


def inline(fn: Callable[[], T]) -> T:
    """Run a plain function at least once; its first recorded value is the result, also in every replay.

    The value passes as JSON, by the function's return annotation if it has one.
    """
    hint = _returned(fn)

    def encode(value: T) -> Payload:
        return convert.encode(value, hint, "the value of inline()")

    def decode(payload: Payload) -> T:
        value: T = convert.decode(payload, hint, "the value of inline()")
        return value

    return current("inline()").inline(fn, encode, decode)


def _returned(fn: Callable[..., Any]) -> Any:
    if "return" not in getattr(fn, "__annotations__", ()):
        return Any
    return typing.get_type_hints(fn, include_extras=True)["return"]


def now() -> dt.datetime:
    """The time of the event being applied, in UTC: the same in every replay."""
    loop = current("now()")
    return dt.datetime.fromtimestamp(loop.now_ms / 1000, dt.UTC)


def _stream(what: str) -> _random.Random:
    """A generator of its own for each call: derived from the run and the position, which it takes."""
    loop = current(what)
    position = loop.path().take()
    return _random.Random(digest(what, f"{loop.context.run_id}\x1f{position}", b""))


def random() -> _random.Random:
    """A seeded generator: the same numbers in every replay."""
    return _stream("random()")


def uuid4() -> uuid.UUID:
    """A UUID derived from the run and the position."""
    return uuid.UUID(int=_stream("uuid4()").getrandbits(128), version=4)


def patched(id: str) -> bool:
    """Whether the run comes by a change of the code for the first time: False in runs that passed here before it.

    So that open runs go on as they began, while others do what the code says now:

        if patched("check-stock"):
            await reserve(sku)  # runs that come here since the change was deployed
        else:
            await count(sku)  # those that had come here before

    `id` names the change, once in a workflow. A run keeps its answer, and the call takes no position. When no run of
    the old branch is open any more, nor will be resumed or reset, the new branch may stand alone, without `patched`.
    """
    return current("patched()").patched(check_text(id, "the id of a patch"))


def info() -> RunContext:
    """The run's ids, name, tags and parent."""
    return current("info()").context


def set_attributes(**attributes: Any) -> None:
    """Replace the run's search attributes."""
    current("set_attributes()").set_attributes(convert.encode_attributes(attributes))


class _Sent:
    """Sent with the turn. There is nothing to wait for: to await it goes on at once."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


def signal(workflow_id: str, channel: str, value: Any) -> Awaitable[None]:
    """Send a signal to another run; awaited or not. Nobody tells the code what became of it: a run that does not exist
    yet will find it, and that it came to one that has ended stands in the engine's log.
    """
    loop = current("signal()")
    check_text(channel, "the name of a channel")
    loop.issue_signal(
        check_text(workflow_id, "a workflow id"), channel, convert.encode(value, what=f"a signal to {channel}")
    )
    return _Sent()


def continue_as_new(workflow: Any, *args: Any, build: BuildPolicy = "current", **kwargs: Any) -> NoReturn:
    """End this run and go on as a new one of the same id, with a fresh history. Signals not received move on."""
    current("continue_as_new()")
    from perdure.workflow import workflow_of

    code = workflow_of(workflow).code
    raise ContinueAsNew(code.name, code.encode_args(args, kwargs), build)


class Channel(Generic[T]):
    """Signals of one name, in order, kept until somebody receives them.

    As an attribute of a class workflow: `approvals: Channel[str] = Channel()`.
    """

    def __init__(self, name: str = "", type: Any = Any) -> None:
        """`type` is what its values are; for an attribute of a class, the annotation tells."""
        self.name = check_text(name, "the name of a channel")
        self._type = type
        self._declared: tuple[Any, str] | None = None
        """The class and attribute whose annotation tells the type, until it was looked at."""

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = self.name or name
        if self._type is Any:
            self._declared = owner, name

    def _hint(self) -> Any:
        """The type of the values. Not before the first use: an annotation may name what is defined further down."""
        if self._declared is not None:
            owner, attribute = self._declared
            arguments = typing.get_args(typing.get_type_hints(owner, include_extras=True).get(attribute))
            self._type, self._declared = (arguments or (Any,))[0], None
        return self._type

    def compile(self, where: str) -> None:
        """Look at the type of its values now rather than at the first signal; `where` is told of it.

        Raises:
            DefinitionError: the type cannot be resolved, has no JSON form, or is a union that JSON cannot tell apart.
        """
        try:
            convert.codec(self._hint())
        except Exception as error:
            raise DefinitionError(f"{where}: the type of channel {self.name} cannot be used: {error}") from error

    def encode(self, value: T) -> Payload:
        """The payload of a signal.

        Raises:
            SerializationError: the value is not of the channel's type.
        """
        if value is None:
            self._check_none(NULL)
        return convert.encode(value, self._hint(), f"a signal to {self.name}")

    def receive(self, *, where: Callable[[T], bool] | None = None) -> Receipt[T]:
        """The next signal (that `where` accepts). Awaitable, with `&` and `|`.

        In an `any_of` whose other member was first (`receive() | timer(60)`) it takes no signal any more, unless it is
        waited for again. A signal that is not of the channel's type is dropped, with a warning in the worker's log.
        """
        loop = current(f"{self.name}.receive()")
        return Receipt(loop, loop.mailbox(self.name), self.decode, where)

    def decode(self, payload: Payload) -> Any:
        """The value of a signal.

        Raises:
            SerializationError: it is not of the channel's type.
            Exception: the type itself is none that can be read: a mistake in the code, not in the signal.
        """
        convert.codec(self._hint())
        self._check_none(payload)
        return convert.decode(payload, self._hint(), f"a signal of {self.name}")

    def _check_none(self, payload: Payload) -> None:
        """Received as None, an empty signal would look like the time-out beside it."""
        if payload.encoding == "null" and not convert.admits_none(self._hint()):
            kind = convert.describe(self._hint())
            raise SerializationError(f"a signal of {self.name} needs a value: it takes {kind}, and None is none")

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        return await self.receive()


def name_and_type(channel: Channel[Any]) -> str:
    """For messages."""
    return f"{channel.name} ({convert.describe(channel._hint())})"


@overload
def channel(name: str) -> Channel[Any]: ...
@overload
def channel(name: str, type: type[T]) -> Channel[T]: ...
@overload
def channel(name: str, type: Any) -> Channel[Any]: ...
def channel(name: str, type: Any = Any) -> Channel[Any]:
    """A channel of a function workflow. `type` is what its values are; annotate the variable where it is no class."""
    return Channel(name, type)


class _WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """Silent in replay: a line is written once, when it is first reached."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name for it
        loop = running()
        silent = loop is not None and (loop.replaying or loop.evicting)
        return not silent and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        loop = running()
        if loop is not None:
            ids = {"workflow_id": loop.context.workflow_id, "run_id": loop.context.run_id}
            kwargs["extra"] = {**(kwargs.get("extra") or {}), **ids}
        return msg, kwargs


logger = _WorkflowLogger(logging.getLogger("perdure.workflow"), {})
"""Log from workflow code with it: every line once, with the run's ids."""
