"""What people do to a run: cancel, terminate, pause, unpause, resume."""

from __future__ import annotations

from typing import assert_never

from perdure_core.workflow_engine.decisions import (
    AwaitEnd,
    Context,
    Decision,
    Discard,
    DiscardReason,
    FindEnd,
    Later,
    Record,
    Rewind,
    Serve,
)
from perdure_core.workflow_engine.replies import reply, run_result
from perdure_core.workflow_engine.start import awaits_next_run, replaceable
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.common import Failure
from perdure_schemas.events import CancelRequested, Paused, RunEnded, Unpaused
from perdure_schemas.messages import ControlRun, Message, ResumeRun, WaitForResult


def _absent(state: RunState, run_id: str) -> DiscardReason | None:
    if state.started is None:
        return "unknown-run"
    return None if state.is_meant(run_id) else "other-run"


CHILD_START_MAX_MS = 600_000
"""So long what a parent does to its child waits for the child's start. One that was refused, or purged, has none."""


def decide_control(state: RunState, message: Message, body: ControlRun, context: Context) -> Decision:
    absent = _absent(state, body.run_id)
    if context.purged:
        return Discard("closed", reply(state, message, "not-found", "the run has ended and was purged"))
    if absent is not None and _overtook_start(state, message, body, context):
        return Later("the child's start is on its way")
    if absent is not None:
        return Discard(absent, reply(state, message, "not-found"))
    if awaits_next_run(state, context):
        return Later("the next run has not started yet")
    if state.ended is not None and not (state.resumable and body.action == "terminate"):
        return Discard("closed", reply(state, message, "refused", f"the run has ended: {state.status}"))
    match body.action:
        case "cancel":
            return _cancel(state, message, body)
        case "terminate":
            failure = Failure(name="Terminated", message=body.reason or "terminated")
            return Record(events=[RunEnded(status="terminated", failure=failure)], now=True)
        case "pause" | "unpause":
            return _pause(state, message, body)
        case _:
            assert_never(body.action)


def _overtook_start(state: RunState, message: Message, body: ControlRun, context: Context) -> bool:
    """Of a child whose start is on its way. Who else asks is answered that there is no such run.

    Not in an unborn row: the start may never come, and the row would do it to another run of the workflow id.
    Under the id of an open run no child starts, unless it replaces that one, whose end may come before the start does.
    """
    if body.actor != "parent" or context.now - message.at >= CHILD_START_MAX_MS:
        return False
    return state.started is None or state.ended is not None or replaceable(state) is not None


def _cancel(state: RunState, message: Message, body: ControlRun) -> Decision:
    if state.canceled is not None:
        return Discard("not-applicable", reply(state, message, "ok"))
    return Record(events=[CancelRequested(reason=body.reason, actor=body.actor)])


def _pause(state: RunState, message: Message, body: ControlRun) -> Decision:
    pausing = body.action == "pause"
    if state.paused == pausing:
        detail = "the run is paused already" if pausing else "the run is not paused"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    if pausing:
        return Record(events=[Paused(reason=body.reason, actor=body.actor)], now=True)
    return Record(events=[Unpaused(reason=body.reason, actor=body.actor)], now=True)


def decide_resume(state: RunState, message: Message, body: ResumeRun) -> Decision:
    absent = _absent(state, body.run_id)
    if absent is not None:
        return Discard(absent, reply(state, message, "not-found"))
    if state.ended is not None and state.ended.status == "continued-as-new":
        return Discard("not-applicable", reply(state, message, "refused", "the run continued as a new one"))
    if not body.position and not body.command_id and not state.resumable and state.stuck is None:
        detail = f"the run is {state.status}: only failed and stuck runs resume; name a position to reset"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    return Rewind(body)


def decide_wait(state: RunState, message: Message, body: WaitForResult, context: Context) -> Decision:
    if state.started is None:
        return Discard("unknown-run", reply(state, message, "not-found"))
    if body.run_id not in ("", state.run_id):
        following = state.ended if awaits_next_run(state, context) else None
        next_is_meant = following is not None and following.next_run_id == body.run_id
        return Later("the next run has not started yet") if next_is_meant else FindEnd(body.run_id)
    if state.ended is None:
        return AwaitEnd(body.reply_topic)
    return Serve([run_result(state, state.ended, body.reply_topic)])
