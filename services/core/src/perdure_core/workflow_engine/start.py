"""StartWorkflow: one run per workflow id at a time."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import Context, Decision, Discard, Published, Record
from perdure_core.workflow_engine.replies import reply
from perdure_core.workflow_engine.state import RunState
from perdure_schemas import ids, topics
from perdure_schemas.common import Failure
from perdure_schemas.events import Event, RunEnded, Started
from perdure_schemas.messages import ChildOutcome, Message, StartWorkflow

START_AGE_MAX_MS = 14 * 24 * 3_600_000
"""A start older than this is refused: tombstones are kept longer (30 days), so no purged run starts twice."""


def decide_start(state: RunState, message: Message, body: StartWorkflow, context: Context) -> Decision:
    if context.purged:
        return Discard("closed", reply(state, message, "conflict", "this run has ended and was purged"))
    if context.now - message.at > START_AGE_MAX_MS:
        return Discard("too-old", reply(state, message, "refused", "the start is older than 14 days"))
    if state.started is None:
        return Record(events=_first_events(state, body, context), begins_run=True)
    if body.run_id == state.run_id:
        return Discard("already-started", reply(state, message, "ok"))
    if state.ended is not None:
        return Record(events=_first_events(None, body, context), begins_run=True)
    match body.conflict_policy:
        case "use-existing":
            return Discard("already-started", reply(state, message, "ok", "an open run has this id"))
        case "terminate-existing":
            failure = Failure(name="Terminated", message="another run was started under the same workflow id")
            ended = RunEnded(status="terminated", failure=failure)
            return Record(events=[ended], now=True, again=True, cause=end_cause(message))
        case "fail":
            conflict = reply(state, message, "conflict", "an open run has this id")
            return Discard("already-started", [*conflict, *_tell_parent(message, body)])


def end_cause(message: Message) -> str:
    """The cause of the end that a start gave to the run before it."""
    return ids.derive_id(message.id, "terminates")


def _first_events(unborn: RunState | None, body: StartWorkflow, context: Context) -> list[Event]:
    """`Started`, then what came before it: signals of the run before, signals and cancels that overtook it."""
    started = Started(
        run_id=body.run_id,
        name=body.name,
        args=body.args,
        options=body.options,
        parent=body.parent,
        build=body.build if body.build is not None else context.build,
        continued_from=body.continued_from,
        reply_topic=body.reply_topic,
    )
    carried = [recorded.event for recorded in body.signals]
    overtook = [recorded.event for recorded in unborn.unfed] if unborn is not None else []
    return [started, *carried, *overtook]


def _tell_parent(message: Message, body: StartWorkflow) -> list[Published]:
    parent = body.parent
    if parent is None:
        return []
    failure = Failure(name="AlreadyStarted", message=f"workflow id {body.workflow_id!r} has an open run")
    outcome = ChildOutcome(
        workflow_id=parent.workflow_id,
        run_id=parent.run_id,
        command_id=parent.command_id,
        generation=parent.generation,
        outcome="failed",
        failure=failure,
    )
    told = Message(
        id=ids.derive_id(message.id, "refused"),
        namespace=message.namespace,
        key=parent.workflow_id,
        at=message.at,
        body=outcome,
    )
    return [(topics.WORKFLOW_ENGINE, told)]
