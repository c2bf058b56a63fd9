"""What a turn must be, whichever worker made it: nothing that cannot be published may be recorded."""

from __future__ import annotations

from perdure_core.workflow_engine.sizes import SENT_BYTES_MAX, command_bytes, event_bytes, failure_bytes, payload_bytes
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.common import Command, Completion
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
        if command_bytes(command) > SENT_BYTES_MAX:
            return f"the {command.kind} at position {command.position} {_over(command_bytes(command))}"
        known.add(command.id)
    return ""


def problem_of_end(state: RunState, completion: Completion) -> str:
    """Why the run cannot end so; empty: it can."""
    size = payload_bytes(completion.result) + failure_bytes(completion.failure)
    if size > SENT_BYTES_MAX:
        return f"the run's outcome {_over(size)}"
    following, started = completion.next_run, state.started
    if following is None or started is None:
        return ""
    options = started.options
    size = payload_bytes(following.args) + payload_bytes(options.attributes) + payload_bytes(options.memo)
    signals = [state.signals[seq] for seq in following.unreceived if seq in state.signals]
    size += sum(event_bytes(recorded.event) for recorded in signals)
    if size <= SENT_BYTES_MAX:
        return ""
    return f"the start of the next run, with {len(signals)} signals that were not received, {_over(size)}"


def _over(size: int) -> str:
    return f"has {size:,} bytes of data, over the limit of {SENT_BYTES_MAX:,}"
