"""Workflows: `async def` code that outlives processes, on a function or on a class.

    @workflow
    async def order(sku: str, quantity: int = 1) -> str: ...

    @workflow
    class Order:
        approvals: Channel[str] = Channel()

        async def run(self, sku: str) -> str: ...

        @query
        def status(self) -> str: ...

        @update
        async def add(self, sku: str) -> int: ...

In another workflow `order("sku-1")` starts a child and gives a `Deferred[str]`; of a class take
`workflow_of(Order)("sku-1")`.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

import msgspec

from perdure import convert
from perdure._duration import optional_milliseconds
from perdure._fields import check_fields
from perdure._given import check_kind
from perdure._names import check_text, check_workflow_id, checked_tags, is_name
from perdure._options import Match, WorkflowChanged, WorkflowDeclared, check_choice, check_options
from perdure._workflow_code import Code
from perdure.errors import DefinitionError, NotInWorkflow, SerializationError, UnknownName
from perdure.flow import Channel, name_and_type
from perdure.signature import Signature, location
from perdure_schemas.common import BuildPolicy, ClosePolicy, ConflictPolicy, Payload, ReusePolicy, RunOptions

if TYPE_CHECKING:
    from perdure._replay.futures import Deferred

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])
R_co = TypeVar("R_co", covariant=True)

_WORKFLOW = "__perdure_workflow__"
_QUERY = "__perdure_query__"
_UPDATE = "__perdure_update__"


class HasRun(Protocol[P, R_co]):
    """What a workflow class has: `async def run(self, ...)`."""

    def run(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...


class Handler:
    """A query or update of a workflow class."""

    __slots__ = ("fn", "name", "signature")

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name
        self.signature = Signature(fn, name, method=True)


class Workflow(Generic[P, R_co]):
    """A declared workflow. Call it in another workflow to start a child."""

    name: str
    signature: Signature
    target: Callable[..., Any] | type
    """The function or class."""
    queries: Mapping[str, Handler]
    updates: Mapping[str, Handler]
    run_options: RunOptions
    """As they travel."""
    id: str | None = None
    conflict: ConflictPolicy = "fail"
    reuse: ReusePolicy = "always"
    close_policy: ClosePolicy = "cancel"
    build_policy: BuildPolicy = "current"
    build: str | None = None
    match: Match = "args"

    def __init__(self, target: Callable[..., Any] | type, name: str | None) -> None:
        """Use `@workflow`."""
        self.target = target
        self.name = name or target.__name__
        if not is_name(self.name):
            raise DefinitionError(
                f"{location(target)}: {self.name!r} cannot name a workflow. Give one of letters, digits, '_', '-' and "
                "'.', as in @workflow(name=\"order\")."
            )
        if isinstance(target, type):
            _check_init(target)
        main = target.run if isinstance(target, type) else target  # type: ignore[attr-defined]
        self.signature = Signature(main, self.name, method=isinstance(target, type))
        self.queries = _handlers(target, _QUERY)
        self.updates = _handlers(target, _UPDATE)
        self.run_options = RunOptions()
        self.__doc__ = target.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[R_co]:
        """Start it as a child; await the Deferred for its result.

        Raises:
            NotInWorkflow: there is no workflow here to record it.
        """
        issue = getattr(asyncio._get_running_loop(), "issue_child", None)
        if issue is None:
            raise NotInWorkflow(
                f"{self.name}(...) starts a child from a workflow, and this is none. Call client.execute({self.name}, "
                f"...) or client.start({self.name}, ...)."
            )
        deferred: Deferred[R_co] = issue(
            self.name,
            self.signature.bind(args, kwargs),
            self.signature.decode_result,
            child_id=self.id or "",
            close_policy=self.close_policy,
            build_policy=self.build_policy,
            build=self.build,
            run=self.run_options,
        )
        return deferred

    def options(self, **options: Unpack[WorkflowChanged]) -> Self:
        """The same workflow with these options changed: `order.options(id="o-1")("sku-1")`.

        For the options see `WorkflowChanged`.
        """
        check_options(options, WorkflowChanged, "options()")
        changed = copy.copy(self)
        changed.__dict__.pop("code", None)
        changed.run_options = _changed_run_options(self.run_options, options)
        if (id := options.get("id")) is not None:
            changed.id = check_workflow_id(id)
        if (build := options.get("build")) is not None:
            check_text(build, "build")
        check_choice(options.get("conflict"), ConflictPolicy, "conflict")
        check_choice(options.get("reuse"), ReusePolicy, "reuse")
        check_choice(options.get("close_policy"), ClosePolicy, "close_policy")
        check_choice(options.get("build_policy"), BuildPolicy, "build_policy")
        check_choice(options.get("match"), Match, "match")
        names = ("conflict", "reuse", "close_policy", "build_policy", "build", "match")
        given = {name: options.get(name) for name in names}
        changed.__dict__.update({key: value for key, value in given.items() if value is not None})
        return changed

    def run_by(self, fn: Callable[..., Coroutine[Any, Any, Any]]) -> Workflow[..., Any]:
        """The same contract run by another function: how a test stands in for a child."""
        changed: Workflow[..., Any] = copy.copy(self)
        changed.__dict__.pop("code", None)
        changed.target, changed.queries, changed.updates = fn, {}, {}
        return changed

    @functools.cached_property
    def channels(self) -> Mapping[str, Channel[Any]]:
        """Those that a class declares. Its code can make others, by `channel(...)`."""
        return _channels(self.target)

    def encode_signal(self, channel: str, value: Any) -> Payload:
        """The payload of a signal to a channel known by name.

        Raises:
            UnknownName: the class declares channels, and none of this name.
            SerializationError: the value is not of the channel's type.
        """
        payload = convert.encode(value, what=f"the signal to {channel}")
        declared = self.channels.get(channel)
        if declared is not None:
            decoded = declared.decode(payload)
            try:
                check_fields(value, decoded)
            except ValueError as error:
                raise SerializationError(f"the signal to {channel}: {error}") from error
        elif self.channels:
            has = ", ".join(name_and_type(self.channels[name]) for name in sorted(self.channels))
            raise UnknownName(f"{self.name} declares no channel {channel!r}; it has {has}")
        return payload

    @functools.cached_property
    def code(self) -> Code:
        """What the replay loop runs."""
        return Code(self)

    def __repr__(self) -> str:
        return f"<workflow {self.signature!r}>"


def _changed_run_options(kept: RunOptions, options: WorkflowChanged) -> RunOptions:
    tags, attributes, memo = options.get("tags"), options.get("attributes"), options.get("memo")
    check_kind(attributes, Mapping, "attributes", "a dict of values by name, such as {'customer': 'c-1'}")
    changes = {
        "run_timeout_ms": optional_milliseconds(options.get("timeout")),
        "retention_ms": optional_milliseconds(options.get("retention")),
        "retention_given": None if options.get("retention") is None else True,
        "tags": None if tags is None else checked_tags(tags),
        "attributes": None if attributes is None else convert.encode_attributes(attributes),
        "memo": None if memo is None else convert.encode(memo, what="memo"),
    }
    given = {key: value for key, value in changes.items() if value is not None}
    return msgspec.structs.replace(kept, **given) if given else kept


def _handlers(target: Callable[..., Any] | type, mark: str) -> Mapping[str, Handler]:
    if not isinstance(target, type):
        return {}
    members = (inspect.getattr_static(target, name) for name in dir(target) if not name.startswith("__"))
    marked = [m for m in members if inspect.isfunction(m) and hasattr(m, mark)]
    handlers = [Handler(fn, getattr(fn, mark)) for fn in marked]
    found = {handler.name: handler for handler in handlers}
    if len(found) < len(handlers):
        names = sorted(handler.name for handler in handlers)
        raise DefinitionError(f"{location(target)}: two handlers of {target.__name__} have one name among {names}.")
    return found


def _channels(target: Callable[..., Any] | type) -> Mapping[str, Channel[Any]]:
    if not isinstance(target, type):
        return {}
    members = (inspect.getattr_static(target, name) for name in dir(target) if not name.startswith("__"))
    return {member.name: member for member in members if isinstance(member, Channel)}


# --- decorators -----------------------------------------------------------------------------------------


class WorkflowDecorator(Protocol):
    """What `workflow(...)` with options gives."""

    @overload
    def __call__(self, target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]  # as `workflow`
    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...


@overload
def workflow(target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]  # a class first, though callable
@overload
def workflow(target: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(*, name: str | None = None, **options: Unpack[WorkflowDeclared]) -> WorkflowDecorator: ...
def workflow(target: Any = None, /, *, name: str | None = None, **options: Unpack[WorkflowDeclared]) -> Any:
    """Declare a workflow: `@workflow` or `@workflow(name=..., ...)`, on an `async def` or on a class with `run`.

    Its arguments together, and its result, have at most 16,777,216 bytes as JSON, as those of tasks.

    Args:
        name: the wire name; the definition's own unless given. It must stay the same while runs are open.
        options: see `WorkflowDeclared`.

    Raises:
        DefinitionError: it cannot be a workflow; the message tells the line and the remedy.
    """
    check_options(options, WorkflowDeclared, "@workflow")

    def declare(code: Any) -> Any:
        _check_target(code)
        made: Workflow[..., Any] = Workflow(code, name)
        if options:
            made = made.options(**options)
        if isinstance(code, type):
            setattr(code, _WORKFLOW, made)
            _refuse_calls(code)
            return code
        return made

    return declare if target is None else declare(target)


def _check_init(cls: Any) -> None:
    """Raises DefinitionError if the worker, which has no arguments for it, could not make an instance."""
    if cls.__init__ is object.__init__:
        return
    try:
        inspect.signature(cls.__init__).bind(None)
    except TypeError as error:
        raise DefinitionError(
            f"{location(cls)}: __init__ of workflow {cls.__name__} takes arguments ({error}), and the worker gives it "
            "none: let `run` take what a run is started with."
        ) from None


def _refuse_calls(cls: Any) -> None:
    """Its instances are runs, which the worker makes: who calls it as they would a function is told what to call."""
    if cls.__new__ is object.__new__:
        cls.__new__ = _new
    if not hasattr(cls, "__await__"):
        cls.__await__ = _no_child


def _new(cls: Any, *args: Any, **kwargs: Any) -> Any:
    if args or kwargs:
        try:
            if cls.__init__ is object.__init__:
                raise TypeError("its `__init__` takes no arguments")
            inspect.signature(cls.__init__).bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{_no_call(cls)}: {error}") from None
    return object.__new__(cls)


def _no_child(self: object) -> Any:
    raise TypeError(_no_call(type(self)))


def _no_call(cls: type) -> str:
    name = cls.__name__
    return (
        f"a workflow class is not called: workflow_of({name})(...) begins a child in a workflow, client.start({name}, "
        "...) a run elsewhere"
    )


def _check_target(code: Any) -> None:
    if isinstance(code, Workflow):
        raise DefinitionError(f"{location(code.target)}: {code.name} is declared a workflow twice. Keep one @workflow.")
    main = getattr(code, "run", None) if isinstance(code, type) else code
    if inspect.iscoroutinefunction(main):
        return
    if isinstance(code, type):
        raise DefinitionError(f"{location(code)}: {code.__name__} has no `async def run(self, ...)`. Add it.")
    raise DefinitionError(f"{location(code)}: a workflow is an `async def`, and {code.__name__} is none.")


@overload
def workflow_of(target: type[HasRun[P, R]]) -> Workflow[P, R]: ...
@overload
def workflow_of(target: Workflow[P, R]) -> Workflow[P, R]: ...
def workflow_of(target: Any) -> Any:
    """The Workflow of a workflow class; a Workflow itself as it is.

    Raises:
        DefinitionError: the class is not declared with `@workflow`.
    """
    if isinstance(target, Workflow):
        return target
    found = vars(target).get(_WORKFLOW) if isinstance(target, type) else None
    if found is None:
        name = getattr(target, "__name__", repr(target))
        raise DefinitionError(f"{name} is no workflow. Put @workflow above its definition.")
    return found


@overload
def query(fn: F, /) -> F: ...
@overload
def query(*, name: str) -> Callable[[F], F]: ...
def query(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Mark a method of a workflow class that answers from the run's state, and changes nothing.

    Raises:
        DefinitionError: it is `async def`.
    """

    def mark(function: F) -> F:
        if inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"{location(function)}: query {function.__name__} is `async def`; a query answers at once. Use `def`, "
                "or @update for what waits or changes something."
            )
        setattr(function, _QUERY, name or function.__name__)
        return function

    return mark if fn is None else mark(fn)


@overload
def update(fn: F, /) -> F: ...
@overload
def update(*, name: str) -> Callable[[F], F]: ...
def update(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Mark an async method of a workflow class that changes the run, and answers.

    Raises:
        DefinitionError: it is not `async def`.
    """

    def mark(function: F) -> F:
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(f"{location(function)}: update {function.__name__} is not `async def`. Make it so.")
        setattr(function, _UPDATE, name or function.__name__)
        return function

    return mark if fn is None else mark(fn)


def handler_name(target: str | Callable[..., Any]) -> str:
    """The wire name of a query or update: its own, or that of a method marked so."""
    if isinstance(target, str):
        return target
    name = getattr(target, _QUERY, None) or getattr(target, _UPDATE, None)
    if name is None:
        raise DefinitionError(f"{location(target)}: {target.__name__} is marked neither @query nor @update.")
    return cast(str, name)


def handler_signature(target: Callable[..., Any]) -> Signature:
    """What a query or update takes and gives."""
    found = getattr(target, "__perdure_signature__", None)
    if found is None:
        found = Signature(target, handler_name(target), method=True)
        target.__perdure_signature__ = found  # type: ignore[attr-defined]
    return cast(Signature, found)
