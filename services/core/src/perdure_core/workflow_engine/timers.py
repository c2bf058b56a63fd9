"""TimerFired: the timers of workflow code, and the engine's own."""

from __future__ import annotations

from typing import assert_never

from perdure_core.workflow_engine.decisions import Decision, Discard, Purge, Record, RunTurn
from perdure_core.workflow_engine.start import closed_for_good
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.common import Failure
from perdure_schemas.events import CommandSettled, RunEnded
from perdure_schemas.messages import Message, TimerFired


def decide_timer(state: RunState, message: Message, body: TimerFired) -> Decision:
    if state.started is None or body.run_id != state.run_id:
        past = body.kind == "retention" and body.run_id != state.run_id  # runs of an id end before the next begins
        return Purge(body.run_id) if past else Discard("other-run")
    match body.kind:
        case "command":
            return _command_timer(state, body.command_id)
        case "run-timeout":
            if state.ended is not None or body.generation != state.generation:
                return Discard("ended")
            failure = Failure(name="RunTimedOut", message="the run exceeded its run time-out")
            return Record(events=[RunEnded(status="timed-out", failure=failure)], now=True)
        case "turn":
            return _look(state, body)
        case "retention":
            return _retention(state, message, body)
        case _:
            assert_never(body.kind)


def _command_timer(state: RunState, command_id: str) -> Decision:
    if state.closed:
        return Discard("closed")
    command = state.commands.get(command_id) or state.orphans.get(command_id)
    if command is None:
        return Discard("unknown-command")
    if command.settled is not None:
        return Discard("settled")
    return Record(events=[CommandSettled(command_id=command_id, outcome="fired")])


def _look(state: RunState, body: TimerFired) -> Decision:
    """Tries a stuck turn again, and one that is owed: whoever was to run it may have lost it (doubt D2)."""
    stuck = state.stuck is not None and state.ended is None and not state.paused
    if not stuck and not state.needs_turn():
        return Discard("not-applicable")
    return RunTurn(body.attempt)


def _retention(state: RunState, message: Message, body: TimerFired) -> Decision:
    """Purge, unless the run was resumed since: then its next end sets another timer."""
    started = state.started
    if state.ended is None or started is None or body.generation != state.generation:
        return Discard("not-applicable")
    if body.due_at < state.ended_at + started.options.retention_ms:
        return Discard("not-applicable")
    return closed_for_good(state, message) or Purge(state.run_id)
