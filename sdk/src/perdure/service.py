"""Services: tasks that belong together, as a contract that workflows import and an implementation that workers run.

    @service
    class Payments(Protocol):
        async def charge(self, order: str, cents: int) -> str: ...

    payments = service_stub(Payments)          # in workflow code: await payments.charge("o-1", 500)

    class StripePayments(Payments):            # on the worker: Worker(..., services=[StripePayments()])
        async def charge(self, order: str, cents: int) -> str:
            return await stripe.charge(order, cents)

Each public method is a task named `Payments.charge`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Unpack, cast, overload

from perdure._options import TaskDeclared, check_options
from perdure.errors import DefinitionError
from perdure.signature import location
from perdure.task import AsyncTask, Mode, Task

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])

_CONTRACT = "__perdure_service__"
_OPTIONS = "__perdure_method__"


def method(*, name: str | None = None, mode: Mode | None = None, **options: Unpack[TaskDeclared]) -> Callable[[F], F]:
    """Options of one method of a service: those of `@task`. `mode` is for the implementation."""
    check_options(options, TaskDeclared, "@method")

    def note(fn: F) -> F:
        setattr(fn, _OPTIONS, {"name": name, "mode": mode, **options})
        return fn

    return note


@overload
def service(cls: type[C], /) -> type[C]: ...
@overload
def service(*, name: str | None = None, **options: Unpack[TaskDeclared]) -> Callable[[type[C]], type[C]]: ...
def service(cls: type[Any] | None = None, /, *, name: str | None = None, **options: Unpack[TaskDeclared]) -> Any:
    """Declare a class the contract of a service. `options` are those of `@task`, for all its methods.

    Raises:
        DefinitionError: a method is not `async def`, or there is none.
    """
    check_options(options, TaskDeclared, "@service")

    def declare(contract: type[Any]) -> type[Any]:
        prefix = name or contract.__name__
        tasks = {m: _declare_method(prefix, m, fn, options) for m, fn in _methods(contract)}
        if not tasks:
            raise DefinitionError(f"{location(contract)}: service {prefix} has no method. Add an `async def`.")
        setattr(contract, _CONTRACT, tasks)
        return contract

    return declare if cls is None else declare(cls)


def _methods(contract: type) -> list[tuple[str, Callable[..., Any]]]:
    members = ((m, inspect.getattr_static(contract, m)) for m in dir(contract) if not m.startswith("_"))
    return [(m, fn) for m, fn in members if inspect.isfunction(fn)]


def _declare_method(prefix: str, name: str, fn: Callable[..., Any], shared: TaskDeclared) -> Task[..., Any]:
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"{location(fn)}: {prefix}.{name} is not `async def`. In a contract it is what the workflow awaits; "
            "write `async def`, whatever the implementation does."
        )
    own = dict(getattr(fn, _OPTIONS, {}))
    own.pop("mode", None)
    declared: Task[..., Any] = AsyncTask(fn, name=f"{prefix}.{own.pop('name', None) or name}", mode=None, method=True)
    return declared.options(**shared).options(**cast(TaskDeclared, own))


def contract_of(cls: type) -> Mapping[str, Task[..., Any]]:
    """The tasks of a service, by method name; empty if it is none."""
    found: Mapping[str, Task[..., Any]] = getattr(cls, _CONTRACT, {})
    return found


class _Stub:
    def __init__(self, contract: type, tasks: Mapping[str, Task[..., Any]]) -> None:
        self.__dict__.update(tasks)
        self._contract = contract

    def __repr__(self) -> str:
        return f"<stub of service {self._contract.__name__}>"


def service_stub(contract: Callable[..., C]) -> C:
    """What workflow code calls: each method dispatches its task. Typed as the contract itself.

    `contract` is the class; it is taken as a callable since checkers let no abstract class or Protocol pass as a type.

    Raises:
        DefinitionError: the class is no `@service`.
    """
    tasks = contract_of(contract) if isinstance(contract, type) else {}
    if not isinstance(contract, type) or not tasks:
        raise DefinitionError(f"{location(contract)}: {contract.__name__} is no service. Put @service above it.")
    return cast(C, _Stub(contract, tasks))


def implementation_tasks(implementation: object) -> list[Task[..., Any]]:
    """The tasks that an object of a subclass of a contract runs.

    Raises:
        DefinitionError: its class has no contract, or leaves a method of it out.
    """
    cls = type(implementation)
    tasks = contract_of(cls)
    if not tasks:
        raise DefinitionError(f"{location(cls)}: {cls.__name__} implements no service. Derive it from one.")
    bound: list[Task[..., Any]] = []
    for name, declared in tasks.items():
        if inspect.getattr_static(cls, name) is declared.fn:
            raise DefinitionError(
                f"{location(cls)}: {cls.__name__} does not implement {name!r} of {declared.name}. Add the method."
            )
        fn = getattr(implementation, name)
        bound.append(declared.bound_to(fn, getattr(fn, _OPTIONS, {}).get("mode")))
    return bound
