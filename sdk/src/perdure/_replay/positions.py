"""Where workflow code stands, and what its history has recorded there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NoReturn

from perdure._replay.code import RunContext
from perdure._replay.futures import Branch, Path
from perdure._replay.history import Record
from perdure.errors import DefinitionError, Evicted, NotInWorkflow, WorkflowChangedError
from perdure_schemas.common import Command, CommandKind, Payload

ID_BYTES = 16
"""As perdure_schemas.ids.command_id makes them; here, of a part that is joined once per run."""


class Positions:
    """Gives out positions and the ids of commands at them."""

    def __init__(self, context: RunContext) -> None:
        self.record = Record()
        self.evicting = False
        self.querying = False
        self.replaying = False
        self.guarded = True
        of = context
        self._ids = f"{of.namespace}\x1f{of.workflow_id}\x1f{of.run_id}\x1f{of.generation}\x1f"
        self._adoptable: dict[str, Command] = {}
        self._callback_path = Path("cb")
        self._aside: Path | None = None
        """Set while code runs that no replay runs again."""
        self._seq = 0
        self.pending: dict[str, Any] = {}
        """Deferreds and timer handles by command id."""

    def path(self) -> Path:
        """Where the code now running stands."""
        if self._aside is not None:
            return self._aside
        task = asyncio.current_task(self)  # type: ignore[arg-type]  # a loop is what we are mixed into
        if task is None:
            return self._callback_path
        if isinstance(task, Branch):
            return task.path
        raise self.noted(
            NotInWorkflow(
                "asyncio.Task(...) made directly has no place in a workflow's history: "
                "use asyncio.create_task or branch()."
            )
        )

    @contextmanager
    def aside(self, path: Path) -> Iterator[None]:
        """Run an inline function or a query: what it takes must leave no trace, for a replay does not run it."""
        outer = self._aside, self._seq
        self._aside = path
        try:
            yield
        finally:
            self._aside, self._seq = outer

    def adopt(self, commands: Sequence[Command]) -> None:
        """Commands of dropped turns: issued again at the same position with the same digest, they keep their id."""
        for command in commands:
            self._adoptable[command.position] = command

    def claim(
        self, position: str, kind: CommandKind, name: str, digest: str, *, args: Payload | None = None
    ) -> tuple[str, Command | None, bool]:
        """The id of the command; what is known of it from before; whether it is in the history."""
        if self.querying or self.evicting:
            self.refuse()
        try:
            recorded = self.record.take(position, kind, name, digest, args=args)
        except WorkflowChangedError as error:
            self.noted(error)
            raise
        if recorded is not None:
            return recorded.id, recorded, True
        old = self._adoptable.get(position)
        if old is not None and old.kind == kind and old.name == name and old.digest == digest:
            del self._adoptable[position]
            return old.id, old, False
        id = blake2b((self._ids + position).encode(), digest_size=ID_BYTES).hexdigest()
        return id, None, False

    def refuse(self) -> NoReturn:
        """Raise why nothing can be issued or begun now."""
        if self.querying:
            raise self.noted(NotInWorkflow("a query only reads: it cannot call tasks, wait, start timers or signal"))
        if self._aside is not None:
            raise self.noted(
                DefinitionError(
                    "inline(fn) runs fn in no replay: it cannot wake what waits, or start branches and timers. "
                    "Do that in the workflow."
                )
            )
        raise Evicted("this run is being closed: nothing can be issued any more")

    def noted(self, error: BaseException) -> BaseException:
        """Overridden by the loop: the error counts, even if user code swallows it."""
        raise NotImplementedError
