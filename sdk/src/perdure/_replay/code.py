"""What the loop needs to know of a workflow, and what a turn gives back."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from perdure_schemas.common import Command, Completion, Failure, Parent, Payload, WaitsFor
from perdure_schemas.events import StuckKind


class WorkflowCode(Protocol):
    """One registered workflow: the only side of it that the loop sees."""

    @property
    def name(self) -> str: ...

    @property
    def match(self) -> Literal["args", "name"]:
        """Whether arguments of commands must be equal in replay, or only their names."""
        ...

    def create(self) -> Any:
        """The object of a class workflow; `None` of a function."""
        ...

    def main(self, instance: Any, args: Payload) -> Coroutine[Any, Any, Any]:
        """The coroutine of a run. Raises SerializationError when the arguments do not fit."""
        ...

    def encode_result(self, value: Any) -> Payload: ...

    def encode_args(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Payload:
        """The arguments of a run of this workflow, for continue-as-new."""
        ...

    def query(self, instance: Any, name: str, args: Payload) -> Payload: ...

    def update(self, instance: Any, name: str, args: Payload) -> Coroutine[Any, Any, Payload]: ...

    def failure(self, exc: BaseException) -> Failure: ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """What workflow code may know of its run. All of it is the same in every replay but `generation`."""

    namespace: str
    workflow_id: str
    run_id: str
    name: str
    started_at: int
    """Epoch milliseconds."""
    tags: tuple[str, ...] = ()
    generation: int = 0
    """Rewinds so far."""
    parent: Parent | None = None
    build: str | None = None


@dataclass(frozen=True, slots=True)
class Stoppage:
    """Why a turn could not be done: the run gets stuck, nothing of the turn is recorded."""

    kind: StuckKind
    failure: Failure


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did. With `stoppage` set nothing else counts, and the instance is closed."""

    commands: list[Command] = field(default_factory=list)
    waits_for: WaitsFor = WaitsFor()
    completion: Completion | None = None
    patches: list[str] = field(default_factory=list)
    stoppage: Stoppage | None = None
