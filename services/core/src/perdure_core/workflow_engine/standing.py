"""What a run has completed, or is at, that a rewind would go back behind: it is done, whatever the code then thinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure_core.workflow_engine.lineage import from_position
from perdure_core.workflow_engine.state import RunState
from perdure_core.workflow_engine.waits import COMPLETED
from perdure_schemas.common import Command
from perdure_schemas.events import CommandSettled, Recorded, TurnCommitted
from perdure_schemas.messages import ResumeRun

DOES = frozenset({"task", "child"})
"""Commands that do something outside the run."""
SHOWN_MAX = 5
"""In a sentence for people."""


def why_not(state: RunState, body: ResumeRun, to_seq: int, in_force: Sequence[Recorded]) -> str | None:
    """Why the run is not rewound unless `anyway` is said; `None`: nothing stands against it."""
    if body.position:
        done, begun = _done_after_position(body, to_seq, in_force)
        return _done_anew(body.position, done, begun) if done or begun else None
    done = _done_since(to_seq, in_force) or _done_beside(state, body, to_seq, in_force)
    if done:
        return _stays_done(done)
    doing = _doing(state, body, to_seq, in_force)
    if doing:
        return _is_doing(doing)
    return "the run had ended before it heard of the failure" if _ended_unaware(state, body, to_seq) else None


def _done_since(to_seq: int, in_force: Sequence[Recorded]) -> list[Command]:
    """Tasks and children that were issued after the failure and have completed: mostly what made up for it."""
    completed = _completed(in_force)
    return [
        command
        for seq, turn in _turns(in_force)
        for command in turn.commands
        if seq > to_seq and command.kind in DOES and command.id in completed
    ]


def _done_beside(state: RunState, body: ResumeRun, to_seq: int, in_force: Sequence[Recorded]) -> list[Command]:
    """What a parent did about another child's failure while this child failed, too.

    It was issued before this failure, which nobody awaited any more, and its end was news to the code together with
    this failure or later. Gone back to before this failure, the parent would end again as it did, and its end would
    cancel the child.
    Not so if it is this failure that the parent ended for.
    """
    completion = state.ended.completion if state.ended is not None else None
    if not body.command_id or (completion is not None and completion.command_id == body.command_id):
        return []
    gone_on = _gone_on_from(body.command_id, to_seq, in_force)
    if gone_on is None:
        return []
    # A sleep is no work; but if the parent did nothing else before it ended, it waited for this child no more.
    kinds = DOES if state.ended is None else DOES | {"timer"}
    completed = _completed(in_force)
    seen = max(turn.base for seq, turn in _turns(in_force) if seq <= to_seq)
    return [
        command
        for _, turn in _turns(in_force)
        for command in turn.commands
        if turn.base >= gone_on and command.kind in kinds and completed.get(command.id, 0) > seen
    ]


def _doing(state: RunState, body: ResumeRun, to_seq: int, in_force: Sequence[Recorded]) -> list[Command]:
    """What a parent that has not ended is at since it saw the child's failure, or the failure of another before that.

    It would be done though the parent, gone back, had not asked for it; or, asked for before this failure, it would end
    the parent as before, and that end would cancel the child.
    """
    if not body.command_id or state.ended is not None:
        return []
    gone_on = _gone_on_from(body.command_id, to_seq, in_force)
    since = to_seq + 1 if gone_on is None else gone_on
    return [
        command
        for _, turn in _turns(in_force)
        for command in turn.commands
        if turn.base >= since and command.kind in DOES and state.open_command(command.id) is not None
    ]


def _ended_unaware(state: RunState, body: ResumeRun, to_seq: int) -> bool:
    """Whether the turn that ended a parent had not seen the child's failure: run again, it ends as it did."""
    return bool(body.command_id) and state.ended is not None and state.turn is not None and state.turn.base <= to_seq


def _gone_on_from(command_id: str, to_seq: int, in_force: Sequence[Recorded]) -> int | None:
    """Seq of the first failure of another command while this one was under way."""
    commands = [command for seq, turn in _turns(in_force) if seq <= to_seq for command in turn.commands]
    canceled = {command.target for command in commands if command.kind == "cancel"}
    began = next((seq for seq, turn in _turns(in_force) if any(each.id == command_id for each in turn.commands)), None)
    if began is None:
        return None
    for recorded in in_force:
        event = recorded.event
        if (
            isinstance(event, CommandSettled)
            and began < recorded.seq <= to_seq
            and event.outcome not in COMPLETED
            and event.command_id not in canceled
        ):
            return recorded.seq
    return None


def _done_after_position(
    body: ResumeRun, to_seq: int, in_force: Sequence[Recorded]
) -> tuple[list[Command], list[Command]]:
    """Completed tasks and children that a reset does anew or forgets, but for those which its sender named; and other
    children: what they have completed they alone know, and a reset starts others in their place.
    """
    named = {body.position, *(edit.position for edit in body.edits)}
    dropped = [recorded for recorded in in_force if recorded.seq > to_seq]
    anew, completed = from_position(dropped, body.position), _completed(in_force)
    commands = [
        command
        for _, turn in _turns(dropped)
        for command in turn.commands
        if command.kind in DOES and command.id in anew and command.position not in named
    ]
    done = [command for command in commands if command.id in completed]
    return done, [command for command in commands if command.kind == "child" and command.id not in completed]


def _turns(in_force: Sequence[Recorded]) -> Iterator[tuple[int, TurnCommitted]]:
    for recorded in in_force:
        if isinstance(recorded.event, TurnCommitted):
            yield recorded.seq, recorded.event


def _completed(in_force: Sequence[Recorded]) -> dict[str, int]:
    """Command id -> seq of its outcome that is no failure."""
    return {
        recorded.event.command_id: recorded.seq
        for recorded in in_force
        if isinstance(recorded.event, CommandSettled) and recorded.event.outcome in COMPLETED
    }


def _names(done: Sequence[Command]) -> str:
    names = [f"{command.name or command.kind} (position {command.position})" for command in done[:SHOWN_MAX]]
    more = f" and {len(done) - len(names)} more" if len(done) > len(names) else ""
    return f"{', '.join(names)}{more}"


def _stays_done(done: Sequence[Command]) -> str:
    return (
        f"after the failure the run completed {_names(done)}. A resume goes on from before the failure, "
        "as if that had not been done, and does not take it back. Say `anyway` if that is right, or reset the run to "
        "an earlier position"
    )


def _is_doing(doing: Sequence[Command]) -> str:
    return (
        f"since the failure the run is at {_names(doing)}. A resume goes on from before the failure, as if that had "
        "not been asked for. Say `anyway` if that is right"
    )


def _done_anew(position: str, done: Sequence[Command], begun: Sequence[Command]) -> str:
    did = [f"completed {_names(done)}"] if done else []
    if begun:
        did.append(f"began {_names(begun)}, which may have completed tasks of their own")
    return (
        f"after position {position} the run {' and '.join(did)}. A reset goes on from before that position, "
        "as if that had not been done: it does it again where the code asks for it, and does not take it back. "
        "Say `anyway` if that is right"
    )
