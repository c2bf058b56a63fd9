"""How a command ended: the first recorded outcome counts."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import Attached, Context, Decision, Discard, Record, Serve
from perdure_core.workflow_engine.effects import starts_after
from perdure_core.workflow_engine.lineage import Orphan
from perdure_core.workflow_engine.state import RunState
from perdure_core.workflow_engine.waits import COMPLETED
from perdure_schemas.events import CommandSettled
from perdure_schemas.messages import ChildOutcome, Message, TaskOutcome


def decide_outcome(state: RunState, message: Message, body: TaskOutcome | ChildOutcome, context: Context) -> Decision:
    """Of a task or child. What is no news of a child may still be what the start of another one waits for."""
    if state.started is None or body.run_id != state.run_id:
        return Discard("closed" if state.closed else "other-run")
    decision = Discard("closed") if state.closed else _decide(state, body, context)
    if isinstance(decision, Discard) and isinstance(body, ChildOutcome):
        waiting = starts_after(state, body.command_id, message.at)
        return Serve(waiting) if waiting else decision
    return decision


def _decide(state: RunState, body: TaskOutcome | ChildOutcome, context: Context) -> Decision:
    """A failure of an attempt made before a rewind is no news; a success always is.

    Also of a command whose turn a rewind dropped: the next turn may adopt it, and its outcome with it.
    """
    command = state.commands.get(body.command_id) or state.orphans.get(body.command_id)
    if command is None:
        return Discard("unknown-command")
    failed = body.outcome not in COMPLETED
    if command.settled is not None or (isinstance(command, Orphan) and command.failed and failed):
        return _settled(state, body.command_id, context)
    if failed and isinstance(body, TaskOutcome) and body.generation < command.generation:
        return Discard("old-generation")
    event = CommandSettled(
        command_id=body.command_id,
        outcome=body.outcome,
        result=body.result,
        failure=body.failure,
        generation=body.generation,
        attempt=body.attempt if isinstance(body, TaskOutcome) else 0,
    )
    return Record(events=[event])


def _settled(state: RunState, command_id: str, context: Context) -> Decision:
    """Settled by a buffered event: hold with it. By a committed one: no news."""
    buffered = any(
        recorded.seq > context.committed
        and isinstance(recorded.event, CommandSettled)
        and recorded.event.command_id == command_id
        for recorded in reversed(state.unfed)
    )
    return Attached() if buffered else Discard("settled")
