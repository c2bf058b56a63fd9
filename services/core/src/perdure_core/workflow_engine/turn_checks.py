"""What a turn must be, whichever worker made it: nothing that cannot be published may be recorded."""

from __future__ import annotations

from perdure_core.workflow_engine.state import RunState
from perdure_schemas.common import Command
from perdure_schemas.messages import WorkflowTaskCompleted, WorkflowTaskFailed

_NEED_ARGS = frozenset({"task", "child", "signal", "attributes"})


def is_misshapen(body: WorkflowTaskCompleted | WorkflowTaskFailed) -> bool:
    """Whether base, committed and hashes do not even fit each other."""
    if body.base < 1:
        return True
    if isinstance(body, WorkflowTaskFailed):
        return False
    return body.committed < 0 or len(body.hashes) != max(0, body.base - body.committed)


def problem_of(state: RunState, commands: list[Command]) -> str:
    """Why these commands cannot be carried out; empty: they can."""
    known: set[str] = set()
    for command in commands:
        if command.kind in _NEED_ARGS and command.args is None:
            return f"the {command.kind} at position {command.position} has no arguments"
        if command.kind == "timer" and command.due_at is None:
            return f"the timer at position {command.position} is never due"
        if command.id in known or command.id in state.commands:
            return f"the command at position {command.position} was issued before"
        known.add(command.id)
    return ""
