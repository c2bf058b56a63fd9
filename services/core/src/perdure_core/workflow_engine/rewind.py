"""Resume and reset: where a run goes back to."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_core.history import effective
from perdure_core.workflow_engine.decisions import Decision, Discard, Published, Record
from perdure_core.workflow_engine.lineage import from_position
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.replies import reply
from perdure_core.workflow_engine.standing import DOES, why_not
from perdure_core.workflow_engine.state import RunState
from perdure_core.workflow_engine.waits import COMPLETED
from perdure_schemas import topics
from perdure_schemas.common import Outcome
from perdure_schemas.events import CommandSettled, Event, Recorded, Rewound, RunEnded, TurnCommitted
from perdure_schemas.messages import Message, ResumeRun


def decide_rewind(state: RunState, message: Message, body: ResumeRun, history: Sequence[Recorded]) -> Decision:
    """`history` is the run's whole history, all of it committed and applied to `state`."""
    in_force = effective(history)
    taken_back = _taken_back(body, history)
    to_seq = _target(state, body, in_force, taken_back)
    if to_seq is None:
        detail = f"there is nothing at position {body.position!r}" if body.position else "nothing to go back to"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    misplaced = _misplaced_edit(body, history, to_seq)
    if misplaced is not None:
        return Discard("not-applicable", reply(state, message, "refused", misplaced))
    stays = None if body.anyway or body.actor == "parent" else why_not(state, body, to_seq, in_force)
    if stays is not None:
        return Discard("not-applicable", reply(state, message, "refused", stays))
    rewound = Rewound(
        to_seq=to_seq,
        generation=state.generation + 1,
        reason=body.reason,
        actor=body.actor,
        edits=body.edits,
        position=body.position,
        taken_back=taken_back,
    )
    return Record(events=[rewound, *_skips(state, body, to_seq, in_force)], now=True)


def _misplaced_edit(body: ResumeRun, history: Sequence[Recorded], to_seq: int) -> str | None:
    """Why the first edit that would change nothing does not apply."""
    if not body.edits:
        return None
    turns = [recorded.event for recorded in history if isinstance(recorded.event, TurnCommitted)]
    known = {command.position: command for turn in turns for command in turn.commands if command.kind in DOES}
    canceled = _canceled(effective(history), to_seq)
    anew = from_position(history[to_seq:], body.position) if body.position else set()
    completed = _completed(history)
    if len({edit.position for edit in body.edits}) < len(body.edits):
        return "a position is given twice: give it new arguments, or a result instead"
    for edit in body.edits:
        command = known.get(edit.position)
        if command is None:
            return f"there is no task or child at position {edit.position!r} to edit or skip"
        if command.id in anew:
            continue
        outcome = completed.get(command.id)
        if outcome is not None and (outcome != "skipped" or body.position):
            return (
                f"{command.kind} {command.name} at position {edit.position!r} has its result, which stays: "
                "an edit or skip would change nothing; reset the run to that position to do it again"
            )
        if command.id in canceled:
            return (
                f"{command.kind} {command.name} at position {edit.position!r} was canceled by the workflow itself: "
                "an edit or skip would change nothing; reset the run to that position to do it again"
            )
        if command.kind == "child" and edit.args is not None:
            return (
                f"child {command.name} at position {edit.position!r} is a run of its own, which keeps the arguments it "
                "was started with: skip it, or reset the run to that position with the edit, which starts another child"
            )
    return None


def _completed(records: Sequence[Recorded]) -> dict[str, Outcome]:
    """Command id -> its last outcome that is no failure."""
    settled = (recorded.event for recorded in records)
    return {
        each.command_id: each.outcome
        for each in settled
        if isinstance(each, CommandSettled) and each.outcome in COMPLETED
    }


def _canceled(in_force: Sequence[Recorded], to_seq: int) -> set[str]:
    """Ids of the commands that turns which stay in force cancel."""
    turns = (recorded.event for recorded in in_force if recorded.seq <= to_seq)
    commands = (command for turn in turns if isinstance(turn, TurnCommitted) for command in turn.commands)
    return {command.target for command in commands if command.kind == "cancel"}


def _taken_back(body: ResumeRun, history: Sequence[Recorded]) -> list[str]:
    """Commands whose result a person gave by skip, and now corrects by another edit for their position."""
    edited = {edit.position for edit in body.edits}
    if not edited or body.position:  # a reset does anew what it edits
        return []
    completed = _completed(history)
    turns = [recorded.event for recorded in history if isinstance(recorded.event, TurnCommitted)]
    commands = {command.id: command for turn in turns for command in turn.commands}
    return sorted(id for id, known in commands.items() if known.position in edited and completed.get(id) == "skipped")


def _target(state: RunState, body: ResumeRun, in_force: Sequence[Recorded], taken_back: Sequence[str]) -> int | None:
    """The seq after which history is undone; `None`: there is no such point."""
    if body.position:
        return _before_position(in_force, body.position)
    to_seq = _point_of_failure(state, body, in_force)
    if to_seq is None:
        return None
    return min([to_seq, *(seq - 1 for seq in _corrected(body, in_force, taken_back))])


def _corrected(body: ResumeRun, in_force: Sequence[Recorded], taken_back: Sequence[str]) -> list[int]:
    """Seqs of the outcomes that an edit replaces: failures, whatever the code made of them, and results by skip."""
    edited = {edit.position for edit in body.edits}
    turns = [recorded.event for recorded in in_force if isinstance(recorded.event, TurnCommitted)]
    ids = {command.id for turn in turns for command in turn.commands if command.position in edited}
    settled = ((recorded.seq, recorded.event) for recorded in in_force if isinstance(recorded.event, CommandSettled))
    return [
        seq
        for seq, event in settled
        if event.command_id in taken_back or (event.command_id in ids and event.outcome not in COMPLETED)
    ]


def _point_of_failure(state: RunState, body: ResumeRun, in_force: Sequence[Recorded]) -> int | None:
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
    dropped = {
        recorded.event.command_id
        for recorded in in_force
        if isinstance(recorded.event, CommandSettled)
        and recorded.seq > to_seq
        and (recorded.event.outcome not in COMPLETED or recorded.event.outcome == "skipped")
    }
    for recorded in in_force:
        if recorded.seq > to_seq or not isinstance(recorded.event, TurnCommitted):
            continue
        for command in recorded.event.commands:
            pending = command.id in dropped or state.open_command(command.id) is not None
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
        anyway=body.anyway,
    )
    told = outgoing(message.namespace, parent.workflow_id, message.at, resume, message.id, "parent")
    return [(topics.WORKFLOW_ENGINE, told)]
