"""Signals, updates and queries."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import AskWorker, Context, Decision, Discard, Later, Record
from perdure_core.workflow_engine.replies import answer_again, reply
from perdure_core.workflow_engine.start import awaits_next_run
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.events import SignalReceived, UpdateReceived
from perdure_schemas.messages import Message, QueryRun, SendSignal, UpdateRun

GAP_MAX_MS = 60_000
"""So long a signal waits for the one its sender sent before. One that was refused, or died, never comes."""


def decide_signal(state: RunState, message: Message, body: SendSignal, context: Context) -> Decision:
    """A sender's signals are recorded in its order; one that overtook its start waits in an unborn row."""
    if awaits_next_run(state, context):
        return Later("the next run has not started yet")
    if state.closed:
        return Discard("closed", reply(state, message, "refused", f"the run has ended: {state.status}"))
    if context.purged:
        return Discard("closed", reply(state, message, "not-found", "the run has ended and was purged"))
    if state.started is not None and not state.is_meant(body.run_id):
        return Discard("other-run", reply(state, message, "not-found", "another run is in force"))
    missing = state.senders.get(body.sender, 0) < body.after_number
    if missing and context.now - message.at < GAP_MAX_MS:
        return Later("an earlier signal of this sender is on its way")
    event = SignalReceived(channel=body.channel, payload=body.payload, sender=body.sender, number=body.number)
    return Record(events=[event], now=state.started is None)


def decide_update(state: RunState, message: Message, body: UpdateRun, context: Context) -> Decision:
    if state.started is None or not state.is_meant(body.run_id):
        return Discard("unknown-run", reply(state, message, "not-found"))
    if awaits_next_run(state, context):
        return Later("the next run has not started yet")
    if body.update_id in state.answers:
        return Discard("settled", answer_again(state, message, body))
    if state.ended is not None:
        return Discard("closed", reply(state, message, "refused"))
    if body.update_id in state.update_ids:  # an answer that is still to come goes to the topic that asked first
        return Discard("settled", [] if body.update_id in state.updates else answer_again(state, message, body))
    event = UpdateReceived(update_id=body.update_id, name=body.name, args=body.args, reply_topic=body.reply_topic)
    return Record(events=[event])


def decide_query(state: RunState, message: Message, body: QueryRun) -> Decision:
    """Answered on the last turn in force, which comes after all that was recorded before the question was asked.

    What came in since is not waited for: a run that is never at rest can be asked, too.
    """
    if state.started is None:
        return Discard("unknown-run", reply(state, message, "not-found"))
    if not state.is_meant(body.run_id):
        return Discard("other-run", reply(state, message, "not-found"))
    if state.turn is None and state.status == "running":
        return Later("the run has had no turn yet")
    if state.needs_turn() and state.unfed and state.unfed[0].at <= message.at:
        return Later("a turn on what happened before comes first")
    if state.turn is None:
        detail = f"the run is {state.status} and has had no turn: nothing can be asked of it"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    return AskWorker(body.query)
