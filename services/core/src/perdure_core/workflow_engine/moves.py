"""A run moves to another build once a worker of that build has replayed its history.

    MoveRun --no turn yet--------------------------------------------------> RunMoved
       |
       +--> RunWorkflowTask(check) --a worker of the build--> MoveChecked --> RunMoved, or refused
                 ^                                                |
                 +--------- a turn was taken meanwhile -----------+

Nothing is remembered between question and answer: the answer brings all that is to be decided on.
"""

from __future__ import annotations

from msgspec.structs import replace

from perdure_core.workflow_engine.decisions import CheckMove, Context, Decision, Discard, DiscardReason, Record
from perdure_core.workflow_engine.replies import reply
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.common import MoveCheck
from perdure_schemas.events import RunMoved
from perdure_schemas.messages import Message, MoveChecked, MoveRun, ReplyStatus

MOVE_CHECK_MAX_MS = 30_000
"""A replay takes seconds at most. Later nobody waits for the move any more, and it would come as a surprise."""


def decide_move(state: RunState, message: Message, body: MoveRun, context: Context) -> Decision:
    check = MoveCheck(
        question=message.id,
        asked_at=message.at,
        seq=state.seq,
        build=body.build,
        reason=body.reason,
        actor=body.actor,
        reply_topic=body.reply_topic,
        rescue=body.rescue,
    )
    unfit = _unfit(state, message, context, run_id=body.run_id, check=check)
    if unfit is not None:
        return unfit
    return _moved(check) if state.turn is None else CheckMove(check)


def decide_checked(state: RunState, message: Message, body: MoveChecked, context: Context) -> Decision:
    check = body.check
    unfit = _unfit(state, message, context, run_id=body.run_id, check=check)
    if unfit is not None:
        return unfit
    failure = body.failure
    if failure is not None:
        detail = f"{_named(check)} cannot replay the run: {failure.name}: {failure.message}"
        return Discard("refused", reply(state, message, "refused", detail))
    if max(state.turn_seq, state.rewound_seq) > check.seq:
        return CheckMove(replace(check, seq=state.seq))  # what the run did since is to be replayed too
    return _moved(check)


def _moved(check: MoveCheck) -> Record:
    return Record(events=[RunMoved(build=check.build, reason=check.reason, actor=check.actor)], now=True)


def _unfit(state: RunState, message: Message, context: Context, *, run_id: str, check: MoveCheck) -> Discard | None:
    """Why the run is not moved, whatever a worker says."""

    def discard(reason: DiscardReason, status: ReplyStatus, detail: str = "") -> Discard:
        return Discard(reason, reply(state, message, status, detail))

    if state.started is None or not state.is_meant(run_id):
        return discard("unknown-run" if state.started is None else "other-run", "not-found")
    if state.ended is not None:
        return discard("closed", "refused", f"the run has ended: {state.status}")
    if state.stuck is None and state.build == check.build:
        return discard("not-applicable", "ok", "the run is on that build")
    if state.stuck is None and check.rescue:
        return discard("not-applicable", "refused", "the run is not stuck")
    if context.now - check.asked_at > MOVE_CHECK_MAX_MS:
        return discard("too-old", "refused", f"{_named(check)} did not replay the run within {_SECONDS} s")
    return None


_SECONDS = MOVE_CHECK_MAX_MS // 1_000


def _named(check: MoveCheck) -> str:
    return "the worker" if check.build is None else f"build {check.build!r}"
