"""Resume and reset: where a run goes back to."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_core.history import effective
from perdure_core.workflow_engine.decisions import Decision, Discard, Published, Record
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.replies import reply
from perdure_core.workflow_engine.state import RunState
from perdure_core.workflow_engine.waits import COMPLETED
from perdure_schemas import topics
from perdure_schemas.events import CommandSettled, Event, Recorded, Rewound, RunEnded, TurnCommitted
from perdure_schemas.messages import Message, ResumeRun


def decide_rewind(state: RunState, message: Message, body: ResumeRun, history: Sequence[Recorded]) -> Decision:
    """`history` is the run's whole history, all of it committed and applied to `state`."""
    unknown = _unknown_edit(body, history)
    if unknown is not None:
        detail = f"there is no task or child at position {unknown!r} to edit or skip"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    in_force = effective(history)
    to_seq = _target(state, body, in_force)
    if to_seq is None:
        detail = f"there is nothing at position {body.position!r}" if body.position else "nothing to go back to"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    rewound = Rewound(
        to_seq=to_seq,
        generation=state.generation + 1,
        reason=body.reason,
        actor=body.actor,
        edits=body.edits,
        position=body.position,
    )
    return Record(events=[rewound, *_skips(state, body, to_seq, in_force)], now=True)


def _unknown_edit(body: ResumeRun, history: Sequence[Recorded]) -> str | None:
    """The position of the first edit that no task or child was ever issued at."""
    if not body.edits:
        return None
    turns = [recorded.event for recorded in history if isinstance(recorded.event, TurnCommitted)]
    known = {command.position for turn in turns for command in turn.commands if command.kind in ("task", "child")}
    return next((edit.position for edit in body.edits if edit.position not in known), None)


def _target(state: RunState, body: ResumeRun, in_force: Sequence[Recorded]) -> int | None:
    """The seq after which history is undone; `None`: there is no such point."""
    if body.position:
        return _before_position(in_force, body.position)
    command_id = body.command_id
    if not command_id and state.ended is not None and state.ended.completion is not None:
        command_id = state.ended.completion.command_id
    if command_id:
        failed = _before_failure(in_force, command_id)
        if failed is not None or body.command_id:
            return failed
    if state.stuck is not None:
        return state.seq
    last_turn = next((r for r in reversed(in_force) if isinstance(r.event, TurnCommitted)), None)
    ended = state.ended
    return last_turn.seq - 1 if last_turn is not None and ended is not None else None


def _before_position(in_force: Sequence[Recorded], position: str) -> int | None:
    for recorded in in_force:
        turn = recorded.event
        if isinstance(turn, TurnCommitted) and any(command.position == position for command in turn.commands):
            return recorded.seq - 1
    return None


def _before_failure(in_force: Sequence[Recorded], command_id: str) -> int | None:
    for recorded in in_force:
        event = recorded.event
        if isinstance(event, CommandSettled) and event.command_id == command_id and event.outcome not in COMPLETED:
            return recorded.seq - 1
    return None


def _skips(state: RunState, body: ResumeRun, to_seq: int, in_force: Sequence[Recorded]) -> list[Event]:
    """A command that stays in force and is answered by a person is settled here; others when issued again."""
    skipped = {edit.position: edit.result for edit in body.edits if edit.result is not None}
    if not skipped:
        return []
    settled: list[Event] = []
    failed = {
        recorded.event.command_id
        for recorded in in_force
        if isinstance(recorded.event, CommandSettled)
        and recorded.seq > to_seq
        and recorded.event.outcome not in COMPLETED
    }
    for recorded in in_force:
        if recorded.seq > to_seq or not isinstance(recorded.event, TurnCommitted):
            continue
        for command in recorded.event.commands:
            pending = command.id in failed or state.open_command(command.id) is not None
            if command.position in skipped and pending:
                result = skipped[command.position]
                settled.append(CommandSettled(command_id=command.id, outcome="skipped", result=result))
    return settled


def resume_parent(state: RunState, message: Message, body: ResumeRun, ended: RunEnded | None) -> list[Published]:
    """The parent that took the failure this rewind undid goes back to before it, unless told otherwise."""
    parent = state.started.parent if state.started is not None else None
    if parent is None or body.only or ended is None or ended.status != "failed":
        return []
    resume = ResumeRun(
        workflow_id=parent.workflow_id,
        run_id=parent.run_id,
        command_id=parent.command_id,
        reason=body.reason,
        actor="child",
    )
    told = outgoing(message.namespace, parent.workflow_id, message.at, resume, message.id, "parent")
    return [(topics.WORKFLOW_ENGINE, told)]
