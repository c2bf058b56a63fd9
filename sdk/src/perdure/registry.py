"""What an app declares: the workflows and tasks that a worker runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

from perdure.errors import DefinitionError
from perdure.service import contract_of, implementation_tasks
from perdure.signature import location
from perdure.task import Task
from perdure.workflow import _WORKFLOW, Workflow


class Registry:
    """Definitions by wire name."""

    def __init__(self, objects: Iterable[object] = (), services: Iterable[object] = ()) -> None:
        """`objects` are modules, tasks, workflows and workflow classes; `services` implementations of services.

        Raises:
            DefinitionError: two definitions have one name, or an object is none of these.
        """
        self.tasks: dict[str, Task[..., Any]] = {}
        self.workflows: dict[str, Workflow[..., Any]] = {}
        self.elsewhere: frozenset[str] = frozenset()
        """Names of tasks and workflows that the app has, and leaves to other workers."""
        self._alike: list[tuple[type, type]] = []
        """Classes of modules that have the methods of a service without deriving from it."""
        for found in objects:
            self.add(found)
        for implementation in services:
            self.add_service(implementation)

    def add(self, found: object) -> None:
        """A module (all it has), a task, a workflow, or a workflow class."""
        if isinstance(found, ModuleType):
            self.add_module(found)
        elif isinstance(found, Task):
            self._add_task(found)
        elif (definition := _workflow(found)) is not None:
            self._add_workflow(definition)
        else:
            raise DefinitionError(
                f"{found!r} is no module, task or workflow. Pass what @task or @workflow declares; "
                "implementations of services go to `services`."
            )

    def add_module(self, module: ModuleType) -> None:
        """Every task and workflow among the module's globals, imported ones too, and every service that is
        implemented there by a class that can be made without arguments.
        """
        for value in list(vars(module).values()):
            if isinstance(value, Task) or _workflow(value) is not None:
                self.add(value)
            elif isinstance(value, type) and value.__module__ == module.__name__ and _is_implementation(value):
                self.add_service(_instance(value))
        self._alike += _alike(module)

    def only(self, tasks: Collection[str], workflows: Collection[str]) -> Registry:
        """Of all that is here, what has one of these names.

        Raises:
            LookupError: some are not here; it says which, and what is.
        """
        for what, wanted, known in (("task", tasks, self.tasks), ("workflow", workflows, self.workflows)):
            missing = [name for name in wanted if name not in known]
            if missing:
                raise LookupError(
                    f"the app has no {what} {', '.join(missing)}; it has: {', '.join(sorted(known)) or 'none'}"
                )
        chosen = Registry()
        chosen.tasks = {name: self.tasks[name] for name in tasks}
        chosen.workflows = {name: self.workflows[name] for name in workflows}
        chosen.elsewhere = frozenset({*self.tasks, *self.workflows})
        return chosen

    def overlooked(self) -> list[str]:
        """What was probably meant to implement a service that nothing implements, and why it does not."""
        return [
            f"service_not_implemented: {location(cls)}: {cls.__name__} has the methods of service {contract.__name__}, "
            f"but does not derive from it and so does not run them: write class {cls.__name__}({contract.__name__})"
            for contract, cls in self._alike
            if not any(task.name in self.tasks for task in contract_of(contract).values())
        ]

    def add_service(self, implementation: object) -> None:
        """The tasks of a service, run by this object."""
        for task in implementation_tasks(implementation):
            self._add_task(task)

    def _add_task(self, task: Task[..., Any]) -> None:
        known = self.tasks.get(task.name)
        if known is not None and known.fn is not task.fn:
            raise _duplicate("tasks", task.name, known.fn, task.fn)
        task.signature.compile()
        self.tasks[task.name] = task

    def _add_workflow(self, definition: Workflow[..., Any]) -> None:
        known = self.workflows.get(definition.name)
        if known is not None and known.target is not definition.target:
            raise _duplicate("workflows", definition.name, known.target, definition.target)
        definition.signature.compile()
        for handler in (*definition.queries.values(), *definition.updates.values()):
            handler.signature.compile()
        if definition.channels:
            where = f"{location(definition.target)}: {definition.name}"  # found in the source: once for all of them
            for channel in definition.channels.values():
                channel.compile(where)
        self.workflows[definition.name] = definition

    def __repr__(self) -> str:
        return f"<registry of workflows {sorted(self.workflows)} and tasks {sorted(self.tasks)}>"


def _workflow(found: object) -> Workflow[..., Any] | None:
    if isinstance(found, Workflow):
        return found
    return vars(found).get(_WORKFLOW) if isinstance(found, type) else None


def _is_implementation(cls: type) -> bool:
    return bool(contract_of(cls)) and "__perdure_service__" not in vars(cls)


def _alike(module: ModuleType) -> list[tuple[type, type]]:
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    contracts = [cls for cls in classes if "__perdure_service__" in vars(cls)]
    own = [cls for cls in classes if cls.__module__ == module.__name__ and not contract_of(cls)]
    return [
        (contract, cls)
        for contract in contracts
        for cls in own
        if all(callable(getattr(cls, method, None)) for method in contract_of(contract))
    ]


def _instance(cls: type) -> object:
    try:
        return cls()
    except TypeError as error:
        raise DefinitionError(
            f"{location(cls)}: {cls.__name__} implements a service but cannot be made without arguments: {error}. "
            "Make it yourself and pass it: Worker.connect(..., services=[...])."
        ) from error


def _duplicate(kind: str, name: str, first: Any, second: Any) -> DefinitionError:
    return DefinitionError(
        f"two {kind} are named {name!r}: {location(first)} and {location(second)}. Give one another name=."
    )
