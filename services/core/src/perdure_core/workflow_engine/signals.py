"""Signals, updates and queries."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import AskWorker, Context, Decision, Discard, Later, Record
from perdure_core.workflow_engine.replies import reply
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.events import SignalReceived, UpdateReceived
from perdure_schemas.messages import Message, QueryRun, SendSignal, UpdateRun

OVERTAKEN_WAIT_MS = 10_000
"""An earlier signal of the sender that is not here by then was recorded, or refused, by a run before this one."""


def decide_signal(state: RunState, message: Message, body: SendSignal, context: Context) -> Decision:
    """A sender's signals are recorded in its order; one that overtook its start waits in an unborn row."""
    if state.ended is not None and state.ended.status == "continued-as-new":
        return Later("the next run has not started yet")
    if state.closed:
        return Discard("closed", reply(state, message, "not-found", f"the run has {state.status}"))
    if body.run_id and body.run_id != state.run_id and state.started is not None:
        return Discard("other-run", reply(state, message, "not-found", "another run is in force"))
    overtook = max(state.senders.get(body.sender, 0), context.sender_number) < body.after_number
    if overtook and context.now - message.at < OVERTAKEN_WAIT_MS:
        return Later("an earlier signal of this sender is on its way")
    event = SignalReceived(channel=body.channel, payload=body.payload, sender=body.sender, number=body.number)
    return Record(events=[event], now=state.started is None)


def decide_update(state: RunState, message: Message, body: UpdateRun) -> Decision:
    if state.started is None:
        return Discard("unknown-run", reply(state, message, "not-found"))
    if state.ended is not None:
        return Discard("closed", reply(state, message, "refused"))
    if body.update_id in state.updates:
        return Discard("settled")
    event = UpdateReceived(update_id=body.update_id, name=body.name, args=body.args, reply_topic=body.reply_topic)
    return Record(events=[event])


def decide_query(state: RunState, message: Message, body: QueryRun) -> Decision:
    if state.started is None:
        return Discard("unknown-run", reply(state, message, "not-found"))
    if body.run_id and body.run_id != state.run_id:
        return Discard("other-run", reply(state, message, "not-found"))
    if state.turn is None:
        return Later("the run has had no turn yet")
    return AskWorker(body.query)
