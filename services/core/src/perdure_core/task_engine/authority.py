"""What the history of a run says about one command of it.

The history is the authority on a workflow's task (protocol rule 22), and is asked on the slow path only. A store
keeps the *marks* of each command beside the events, so that asking costs what happened to the command, not what
happened to the run. `judge` reads them as `perdure_core.history.effective` reads the events themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct

from perdure_core.history import KEPT_OUTCOMES
from perdure_schemas.common import Outcome
from perdure_schemas.events import CommandSettled, EndStatus, Recorded, Rewound, RunEnded, TurnCommitted

MarkKind = Literal["issued", "canceled", "settled", "rewound", "ended"]

EVERY_COMMAND: Final = ""
"""In the place of a command's id: the mark concerns all commands of the run."""


class Mark(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One thing that a recorded event says about a task."""

    seq: int
    kind: MarkKind
    generation: int = 0
    """`issued`, `rewound`: the number of rewinds before it, itself included."""
    outcome: Outcome | None = None
    """`settled`: how it ended."""
    to_seq: int = 0
    """`rewound`: the events after it, up to the mark, are undone."""
    status: EndStatus | None = None
    """`ended`: how the run did."""
    taken_back: tuple[str, ...] = ()
    """`rewound`: ids of tasks whose result, given by skip, counts no more."""


def marks(recorded: Recorded) -> Iterator[tuple[str, Mark]]:
    """(command id, mark) pairs of an event: of tasks alone, since nothing else is supervised."""
    event, seq = recorded.event, recorded.seq
    match event:
        case TurnCommitted():
            for command in event.commands:
                if command.kind == "task":
                    yield command.id, Mark(seq=seq, kind="issued", generation=event.generation)
                elif command.kind == "cancel":
                    yield command.target, Mark(seq=seq, kind="canceled")
        case CommandSettled() if event.outcome != "fired":
            yield event.command_id, Mark(seq=seq, kind="settled", outcome=event.outcome)
        case Rewound():
            back = tuple(event.taken_back)
            yield (
                EVERY_COMMAND,
                Mark(seq=seq, kind="rewound", to_seq=event.to_seq, generation=event.generation, taken_back=back),
            )
        case RunEnded():
            yield EVERY_COMMAND, Mark(seq=seq, kind="ended", status="terminated" if event.final else event.status)
        case _:
            pass


class Authority(Struct, frozen=True, kw_only=True, gc=False):
    """The verdict: may the task engine go on with the task?"""

    state: Literal["open", "settled", "ended", "gone"]
    """`settled`: it has an outcome; `ended`: its run takes no outcome any more; `gone`: dispatched anew after a rewind,
    or of a run that is not the current one."""
    settled_seq: int = 0
    """`settled` by an event: which one."""
    outcome: Outcome | None = None
    """`settled`: how."""
    settled: CommandSettled | None = None
    """`settled`: the event, if it was asked for."""


def judge(task_id: str, found: Sequence[Mark], generation: int) -> Authority:
    """The verdict on a task of that generation. `found`: its marks and those of every command, by seq."""
    in_force = list(_in_force(task_id, found))
    if any(mark.kind == "ended" and mark.status != "failed" for mark in in_force):
        return Authority(state="ended")
    settled: Mark | None = None
    issued = canceled = False
    for mark in in_force:
        if mark.kind == "issued":
            issued = True
        elif mark.kind == "canceled":
            canceled = True
        elif mark.kind == "settled" and issued and settled is None:
            settled = mark
    if settled is not None:
        return Authority(state="settled", settled_seq=settled.seq, outcome=settled.outcome)
    if canceled and issued:
        return Authority(state="settled", outcome="canceled")
    return Authority(state="open" if _pending(task_id, found, generation, in_force=issued) else "gone")


def _in_force(task_id: str, found: Sequence[Mark]) -> Iterator[Mark]:
    """As `perdure_core.history.effective`: the marks that no rewind undid."""
    canceled = False
    for index, mark in enumerate(found):
        barrier = min((later.to_seq for later in found[index + 1 :] if later.kind == "rewound"), default=mark.seq)
        undone = mark.seq > barrier
        if mark.kind == "settled":
            taken_back = mark.outcome == "skipped" and any(task_id in later.taken_back for later in found[index + 1 :])
            undone = taken_back or (undone and mark.outcome not in KEPT_OUTCOMES and not canceled)
        elif mark.kind == "rewound":
            continue
        if not undone:
            canceled = canceled or mark.kind == "canceled"
            yield mark


def _pending(task_id: str, found: Sequence[Mark], generation: int, *, in_force: bool) -> bool:
    """Whether an outcome of that dispatch is still of use. Also of a task whose turn a rewind dropped (not `in_force`):
    the next turn may adopt it as it runs, and if it does not, the task is canceled.

    A command's generation is counted as `workflow_engine.lineage` does: by the rewinds before its last dispatch.
    """
    last, issued_seq, failed_seq, succeeded_seq = -1, 0, 0, 0
    for mark in found:
        if mark.kind == "issued":
            if last < 0 or failed_seq:
                last, failed_seq = mark.generation, 0
            issued_seq = mark.seq
        elif mark.kind == "rewound":
            if succeeded_seq and task_id in mark.taken_back:
                failed_seq, succeeded_seq = succeeded_seq, 0
            if 0 < issued_seq <= mark.to_seq < failed_seq:
                last, failed_seq = mark.generation, 0
        elif mark.kind == "settled" and mark.outcome in KEPT_OUTCOMES:
            succeeded_seq = mark.seq if issued_seq else 0
        elif issued_seq:
            failed_seq = _failed_seq(mark, failed_seq, succeeded=succeeded_seq > 0)
    over = succeeded_seq > 0 or failed_seq > 0
    return issued_seq > 0 and last <= generation and (in_force or not over)


def _failed_seq(mark: Mark, before: int, *, succeeded: bool) -> int:
    """Where a rewind must go back behind, for the task to be dispatched anew; 0: nowhere."""
    if mark.kind == "settled":
        return mark.seq
    if succeeded or (mark.kind == "ended" and (before or mark.status == "failed")):
        return before
    return mark.seq
