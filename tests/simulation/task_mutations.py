"""Bugs of the rules on tasks (21 to 28), as in `mutations`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from perdure._worker.answers import Answers
from perdure_core.task_engine import decide as task_decide
from perdure_core.task_engine import state as records
from perdure_core.task_engine.authority import Authority
from perdure_core.task_engine.decisions import Discard as TaskDiscard
from perdure_core.workflow_engine import decide, outcomes
from perdure_runtime import task_driver
from perdure_schemas.messages import TaskOutcome
from tests.simulation.mutations import mutation, patched_in


@mutation
def task_engine_told_first(stack: ExitStack) -> None:
    """Rule 21."""
    outcome = Answers.outcome

    def reversed_order(self: Any, *args: Any, **kwargs: Any) -> Any:
        return outcome(self, *args, **kwargs)[::-1]

    patched_in(stack, Answers, "outcome", reversed_order)


@mutation
def history_is_not_asked(stack: ExitStack) -> None:
    """Rule 22: whatever became of the command, its task goes on."""

    async def open_for_ever(*args: Any) -> Authority:
        return Authority(state="open")

    patched_in(stack, task_driver, "read_authority", open_for_ever)


@mutation
def timer_after_record(stack: ExitStack) -> None:
    """Rule 24: the watch timer is published when the record is saved already."""
    engine = task_driver.TaskEngine

    async def save(self: Any, key: str, version: int, decision: Any) -> bool:
        data = records.encode(decision.record)
        if not await self._ports.tasks.save(self._namespace, key, version, data, decision.ttl_ms):
            return False
        await self._publish([*decision.before, *decision.effects])
        return True

    patched_in(stack, engine, "_save", save)
    patched_in(stack, task_decide, "_repeated", lambda record, header, authority: TaskDiscard("duplicate"))


@mutation
def timer_without_record_is_ignored(stack: ExitStack) -> None:
    """Rule 25."""
    fired = task_decide._fired

    def strict(record: Any, message: Any, header: Any, authority: Any) -> Any:
        return TaskDiscard("unknown-task") if record is None else fired(record, message, header, authority)

    patched_in(stack, task_decide, "_fired", strict)


@mutation
def repeated_transition_is_stale(stack: ExitStack) -> None:
    """Rule 26."""
    patched_in(stack, task_decide, "_repeated", lambda record, header, authority: TaskDiscard("stale-attempt"))


@mutation
def failure_needs_a_record(stack: ExitStack) -> None:
    """Rule 27."""
    outcome = task_decide._outcome

    def strict(record: Any, message: Any, header: Any, authority: Any) -> Any:
        if record is None and message.outcome != "completed":
            return TaskDiscard("unknown-task")
        return outcome(record, message, header, authority)

    patched_in(stack, task_decide, "_outcome", strict)


@mutation
def last_outcome_counts(stack: ExitStack) -> None:
    """Rule 28: an outcome is recorded though the command has one."""
    first = outcomes.decide_outcome

    def every(run: Any, message: Any, body: Any, context: Any) -> Any:
        command = run.commands.get(body.command_id)
        if command is not None and command.settled is not None and isinstance(body, TaskOutcome):
            command.settled = None
        return first(run, message, body, context)

    patched_in(stack, decide, "decide_outcome", every)
