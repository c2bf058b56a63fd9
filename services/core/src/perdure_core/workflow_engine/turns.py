"""Results of decision turns. A turn counts only if it rests on exactly the history that is being extended."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import Ahead, Context, Decision, Discard, Record, Refuse, RunTurn, Serve
from perdure_core.workflow_engine.effects import turn_retry_timer
from perdure_core.workflow_engine.state import RunState
from perdure_core.workflow_engine.turn_checks import is_misshapen, problem_of, problem_of_end
from perdure_schemas import ids
from perdure_schemas.common import Command, Failure
from perdure_schemas.events import (
    CancelRequested,
    CommandSettled,
    Event,
    RunEnded,
    SignalReceived,
    Stuck,
    TurnCommitted,
    UpdateReceived,
)
from perdure_schemas.messages import Message, WorkflowTaskCompleted, WorkflowTaskFailed

AHEAD_AGE_MAX_MS = 3_600_000
"""A turn's result whose run is unknown for an hour belongs to a purged run: it would circle for ever."""


def decide_completed(state: RunState, message: Message, body: WorkflowTaskCompleted, context: Context) -> Decision:
    unfit = _unfit(state, message, body, context)
    if unfit is not None:
        return unfit
    problem = problem_of(state, body.commands)
    if not problem and body.completion is not None:
        problem = problem_of_end(state, body.completion)
    if problem:
        return _malformed(state, message, body, problem)
    unseen = any(
        recorded.seq > body.base and isinstance(recorded.event, SignalReceived | UpdateReceived | CancelRequested)
        for recorded in state.unfed
    )
    if body.completion is not None and unseen:
        return Refuse() if state.stuck is None else RunTurn(1)  # of a stuck run no turn is asked for by itself
    turn = TurnCommitted(
        workflow_task_id=body.workflow_task_id,
        base=body.base,
        nonce=message.id,
        generation=body.generation,
        commands=body.commands,
        waits_for=body.waits_for,
        patches=body.patches,
        build=body.build,
        python=body.python,
    )
    events: list[Event] = [turn]
    for command in body.commands:
        events.extend(_settled_at_once(state, command))
    if body.completion is not None:
        events.append(_ended(state, body))
    return Record(events=events, now=True)


def _malformed(state: RunState, message: Message, body: WorkflowTaskCompleted, problem: str) -> Decision:
    """The worker is wrong, not the workflow: the run waits, stuck, for a better one."""
    return _stuck(
        state,
        message,
        Stuck(
            workflow_task_id=body.workflow_task_id,
            kind="bug",
            failure=Failure(name="MalformedTurn", message=problem),
            build=body.build,
        ),
    )


def _settled_at_once(state: RunState, command: Command) -> list[Event]:
    """A command whose outcome stands already: skipped by a person at resume, or adopted with its old result."""
    edit = state.edits.get(command.position)
    if edit is not None and edit.result is not None and command.kind in ("task", "child"):
        return [CommandSettled(command_id=command.id, outcome="skipped", result=edit.result)]
    orphan = state.orphans.get(command.id)
    return [orphan.settled] if orphan is not None and orphan.settled is not None else []


def _ended(state: RunState, body: WorkflowTaskCompleted) -> RunEnded:
    completion = body.completion
    assert completion is not None
    next_run_id = ""
    if completion.next_run is not None:
        next_run_id = ids.derive_id(state.run_id, "next", state.generation)
    return RunEnded(
        status=completion.status,
        result=completion.result,
        failure=completion.failure,
        next_run_id=next_run_id,
        completion=completion,
    )


def decide_failed(state: RunState, message: Message, body: WorkflowTaskFailed, context: Context) -> Decision:
    unfit = _unfit(state, message, body, context)
    if unfit is not None:
        return unfit
    event = Stuck(workflow_task_id=body.workflow_task_id, kind=body.kind, failure=body.failure, build=body.build)
    return _stuck(state, message, event, attempt=body.attempt)


def _stuck(state: RunState, message: Message, event: Stuck, *, attempt: int = 1) -> Decision:
    """The same failure again is no news; it only waits longer."""
    stuck = state.stuck
    if stuck is not None and (stuck.kind, stuck.failure, stuck.build) == (event.kind, event.failure, event.build):
        again = turn_retry_timer(state, message.at, max(attempt, state.stuck_count))
        return Serve([again] if attempt else [])  # a look fails beside the back-off, which goes on
    return Record(events=[event], now=True)


def _unfit(
    state: RunState, message: Message, body: WorkflowTaskCompleted | WorkflowTaskFailed, context: Context
) -> Decision | None:
    """Why the turn does not count, if so. Discards rest on committed facts alone."""
    if context.purged:
        return Discard("closed")
    if state.started is None:
        old = context.now - message.at > AHEAD_AGE_MAX_MS
        return Discard("unknown-run") if old else Ahead()
    if body.run_id != state.run_id:
        return Discard("other-run")
    if is_misshapen(body):
        return Discard("malformed")
    if _diverged(state, body, context.committed):
        return Discard("diverged")
    if body.base > state.seq or state.hashes[body.base] != body.base_hash:
        return Ahead()
    if state.turn_seq > body.base:
        return Discard("decided")
    if state.rewound_seq > body.base:
        return Discard("rewound")
    if state.ended is not None:
        return Discard("ended")
    return None


def _diverged(state: RunState, body: WorkflowTaskCompleted | WorkflowTaskFailed, committed: int) -> bool:
    if body.base <= committed:
        return state.hashes[body.base] != body.base_hash
    if isinstance(body, WorkflowTaskFailed):
        return False
    known = range(body.committed + 1, committed + 1)
    return any(state.hashes[seq] != body.hashes[seq - body.committed - 1] for seq in known)
