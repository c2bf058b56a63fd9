"""StartWorkflow: one run per workflow id at a time.

A parent that dispatches its child command again, after a rewind, sends the same start with a higher generation:
then the child that failed is resumed, one that ended otherwise tells its end once more, one that runs goes on.
A child whose workflow id has had another run since tells its end once more, however it ended: only the last run of an
id can go on.

A parent that starts another child under the id of one that a rewind dropped says "use-existing": as long as the old one
is there, which may be long at its tidying up, the start does nothing. Its end is told to the parent, which then sends
the start again, if it still wants that child. A run of anybody else under that id refuses the start.

Once the last run of an id has ended, the reuse policy of a start says whether another may begin: as long as that run is
kept. What continues a run is no other.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from perdure_core.workflow_engine.decisions import (
    Context,
    Decision,
    Discard,
    DiscardReason,
    FindEnd,
    Later,
    Record,
    Rewind,
    RunDefaults,
    Serve,
)
from perdure_core.workflow_engine.replies import child_refused, reply, tell_parent
from perdure_core.workflow_engine.state import RunState
from perdure_schemas import ids
from perdure_schemas.common import RETENTION_MS, Failure, Parent, RunOptions, SenderNumber
from perdure_schemas.events import RunEnded, SignalReceived, Started
from perdure_schemas.messages import Message, ReplyStatus, ResumeRun, StartWorkflow, TimerFired

START_AGE_MAX_MS = 14 * 24 * 3_600_000
"""A start older than this is refused: tombstones are kept longer (30 days), so no purged run starts twice."""

SENDERS_CARRIED_MAX = 1_000
"""Senders a run hands to the next one: about 50 kB. One left out waits `signals.GAP_MAX_MS` once."""


def decide_start(state: RunState, message: Message, body: StartWorkflow, context: Context) -> Decision:
    if context.purged:
        return _refused(state, message, "closed", "this run has ended and was purged")
    if context.now - message.at > START_AGE_MAX_MS:
        return _refused(state, message, "too-old", "the start is older than 14 days", status="refused")
    if state.is_meant(body.run_id):
        return _known(state, message, body)
    if context.earlier:
        return FindEnd(body.run_id)
    if state.started is None or _continued_by(state, body):
        return _begin(state, body, context)
    if state.ended is not None:
        return _after_end(state, message, body, context)
    return _beside(state, message, body)


def _beside(state: RunState, message: Message, body: StartWorkflow) -> Decision:
    """Another run than the one that is open."""
    match body.conflict_policy:
        case "use-existing" if body.parent is not None and _replaced_by(state, body.parent):
            return Discard("already-started")  # the parent, told of the end of the open run, sends the start again
        case "use-existing" if body.parent is None:
            return Discard("already-started", reply(state, message, "ok", "an open run has this id"))
        case "terminate-existing":
            failure = Failure(name="Terminated", message="another run was started under the same workflow id")
            ended = RunEnded(status="terminated", failure=failure)
            return Record(events=[ended], now=True, again=True, cause=termination_cause(message))
        case "fail" | "use-existing":
            given = '"use-existing" gives that run, ' if body.parent is None else ""
            detail = f'an open run has this id (conflict {given}"terminate-existing" replaces it)'
            return _refused(state, message, "already-started", detail)


def replaceable(state: RunState) -> Parent | None:
    """Whose child the open run is, if its parent ends it where a rewind drops it. One that is to outlive its parent is
    told nothing then: it may never end, and keeps its id."""
    parent = state.started.parent if state.started is not None else None
    return None if parent is None or parent.close_policy == "abandon" else parent


def _replaced_by(state: RunState, parent: Parent) -> bool:
    """Whether the very run that starts another child had started the open one before a rewind."""
    known = replaceable(state)
    same = known is not None and (known.workflow_id, known.run_id) == (parent.workflow_id, parent.run_id)
    return same and known is not None and known.generation < parent.generation


def _continued_by(state: RunState, body: StartWorkflow) -> bool:
    return state.ended is not None and state.ended.next_run_id == body.run_id


def _after_end(state: RunState, message: Message, body: StartWorkflow, context: Context) -> Decision:
    """Another run than the one that has ended, and than the one that continues it."""
    if awaits_next_run(state, context):
        return Later("the run continues as a new one, whose start is on its way")
    if may_follow(state, message, body):
        return closed_for_good(state, message) or _begin(state, body, context)
    ended = f"the run of this id has ended: {state.status}"
    if body.conflict_policy == "use-existing" and body.parent is None:
        return Discard("already-started", reply(state, message, "ok", ended))
    remedy = 'reuse "always" does, and conflict "use-existing" gives the run that has ended'
    detail = f'{ended}, and reuse "{body.reuse_policy}" lets no other begin ({remedy})'
    return _refused(state, message, "already-started", detail)


def may_follow(state: RunState, message: Message, body: StartWorkflow) -> bool:
    """Whether the reuse policy lets another run begin after the one that has ended."""
    assert state.ended is not None
    match body.reuse_policy:
        case "always":
            return True
        case "after-failure":
            return state.ended.status != "completed"
        case "never":  # speaks of runs that had ended, and not of one that this very start terminated
            return state.causes.get(termination_cause(message)) == state.ended_seq
        case _:
            assert_never(body.reuse_policy)


def closed_for_good(state: RunState, message: Message) -> Record | None:
    """What a failed run left open goes on, for it may be resumed: until another run follows, or it is purged."""
    ended = state.ended
    if ended is None or not ended.resumable or not state.still_open:
        return None
    closed = RunEnded(status=ended.status, failure=ended.failure, final=True)
    return Record(events=[closed], now=True, again=True, cause=termination_cause(message))


def awaits_next_run(state: RunState, context: Context) -> bool:
    """Whether the run continued as one whose start may still come. A start that got lost does not hold back for ever
    what waits for it: when it would be refused for its age, the workflow id is free."""
    continued = state.ended is not None and state.ended.status == "continued-as-new"
    return continued and context.now - state.ended_at <= START_AGE_MAX_MS


def termination_cause(message: Message) -> str:
    """What ends the run before this start, or before it is purged; empty: nothing does.

    That end is a commit of its own. Its effects are published again before the new run begins, and with its effects;
    before a purge they are confirmed.
    """
    body = message.body
    match body:
        case StartWorkflow(continued_from=None) | TimerFired(kind="retention"):
            return ids.derive_id(message.id, "terminates")
        case _:
            return ""


def _begin(before: RunState, body: StartWorkflow, context: Context) -> Record:
    """`Started`, then signals the run before did not receive, and those that overtook the start."""
    first = before.started.first_run_id if before.started is not None and _continued_by(before, body) else body.run_id
    defaults = _defaults(body.options, context.defaults)
    started = Started(
        run_id=body.run_id,
        name=body.name,
        args=body.args,
        options=msgspec.structs.replace(body.options, **defaults) if defaults else body.options,
        run_timeout_defaulted="run_timeout_ms" in defaults,
        retention_defaulted="retention_ms" in defaults,
        parent=body.parent,
        build=body.build if body.build is not None else context.build,
        continued_from=body.continued_from,
        reply_topic=body.reply_topic,
        first_run_id=first,
        senders=_senders(before),
    )
    overtook = before.unfed if before.started is None else []
    signals = [recorded for recorded in body.signals if isinstance(recorded.event, SignalReceived)]
    return Record(events=[started], carried=[*signals, *overtook], begins_run=True)


def _defaults(given: RunOptions, defaults: RunDefaults) -> dict[str, int]:
    """Of the workflow, for what a start leaves to them. A retention that is not the usual one was chosen, also by a
    sender that does not say so."""
    own_retention = given.retention_given or given.retention_ms != RETENTION_MS
    left = {
        "run_timeout_ms": defaults.run_timeout_ms if given.run_timeout_ms is None else None,
        "retention_ms": None if own_retention else defaults.retention_ms,
    }
    return {name: value for name, value in left.items() if value is not None}


def _senders(before: RunState) -> list[SenderNumber]:
    """Whose signals count on from the run before; those that sent last."""
    if before.started is None:
        return []
    return [SenderNumber(sender, number) for sender, number in list(before.senders.items())[-SENDERS_CARRIED_MAX:]]


def _known(state: RunState, message: Message, body: StartWorkflow) -> Decision:
    """The run is there already: a repetition, or its parent asks for it once more."""
    assert state.started is not None
    parent, known = body.parent, state.started.parent
    if parent is None or known is None or parent.generation <= known.generation or state.ended is None:
        return Discard("already-started", reply(state, message, "ok"))
    if state.resumable:
        resume = ResumeRun(workflow_id=body.workflow_id, run_id=body.run_id, actor="parent", only=True)
        return Rewind(resume)
    if state.ended.status == "continued-as-new":
        return Discard("already-started", reply(state, message, "ok"))
    return Serve([tell_parent(state, parent, state.ended)])


def _refused(
    state: RunState, message: Message, reason: DiscardReason, detail: str, *, status: ReplyStatus = "conflict"
) -> Discard:
    """Whoever asked is told; a parent too, or its command would stay open for ever."""
    body = message.body
    assert isinstance(body, StartWorkflow)
    told = [] if body.parent is None else [child_refused(message, body.parent, detail)]
    return Discard(reason, [*reply(state, message, status, detail), *told])
