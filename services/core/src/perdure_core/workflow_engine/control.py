"""What people do to a run: cancel, terminate, pause, unpause, move."""

from __future__ import annotations

from typing import assert_never

from perdure_core.workflow_engine.decisions import (
    AwaitEnd,
    Context,
    Decision,
    Discard,
    DiscardReason,
    Later,
    Record,
    Rewind,
    Serve,
)
from perdure_core.workflow_engine.replies import reply, run_result
from perdure_core.workflow_engine.state import RunState
from perdure_schemas.common import Failure
from perdure_schemas.events import CancelRequested, Paused, RunEnded, RunMoved, Unpaused
from perdure_schemas.messages import ControlRun, Message, MoveRun, ResumeRun, WaitForResult


def _absent(state: RunState, run_id: str) -> DiscardReason | None:
    if state.started is None:
        return "unknown-run"
    return "other-run" if run_id and run_id != state.run_id else None


CLOSE_AGE_MAX_MS = 3_600_000
"""A parent's end that finds no child for so long: the child was refused, or purged."""


def decide_control(state: RunState, message: Message, body: ControlRun, context: Context) -> Decision:
    if _overtook_start(state, body) and context.now - message.at < CLOSE_AGE_MAX_MS:
        return Later("the child's start is on its way")
    if state.started is None and body.action == "cancel":
        return _cancel(state, message, body, now=True)
    absent = _absent(state, body.run_id)
    if absent is not None:
        return Discard(absent, reply(state, message, "not-found"))
    if state.ended is not None and state.ended.status == "continued-as-new":
        return Later("the next run has not started yet")
    if state.ended is not None and not (state.resumable and body.action == "terminate"):
        return Discard("closed", reply(state, message, "refused", f"the run has {state.status}"))
    match body.action:
        case "cancel":
            return _cancel(state, message, body, now=False)
        case "terminate":
            failure = Failure(name="Terminated", message=body.reason or "terminated")
            return Record(events=[RunEnded(status="terminated", failure=failure)], now=True)
        case "pause" | "unpause":
            return _pause(state, message, body)
        case _:
            assert_never(body.action)


def _overtook_start(state: RunState, body: ControlRun) -> bool:
    """A parent closes a child that it has started, whatever comes first. A cancel may wait in an unborn row."""
    if body.actor != "parent" or body.run_id == state.run_id:
        return False
    return state.ended is not None or (state.started is None and body.action != "cancel")


def _cancel(state: RunState, message: Message, body: ControlRun, *, now: bool) -> Decision:
    """Of a run not started yet too: the cancel waits for its start in an unborn row."""
    if state.canceled is not None:
        return Discard("not-applicable", reply(state, message, "ok"))
    return Record(events=[CancelRequested(reason=body.reason, actor=body.actor)], now=now)


def _pause(state: RunState, message: Message, body: ControlRun) -> Decision:
    pausing = body.action == "pause"
    if state.paused == pausing:
        detail = "the run is paused already" if pausing else "the run is not paused"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    if pausing:
        return Record(events=[Paused(reason=body.reason, actor=body.actor)], now=True)
    return Record(events=[Unpaused(reason=body.reason, actor=body.actor)], now=True)


def decide_move(state: RunState, message: Message, body: MoveRun) -> Decision:
    absent = _absent(state, body.run_id)
    if absent is not None:
        return Discard(absent, reply(state, message, "not-found"))
    if state.ended is not None:
        return Discard("closed", reply(state, message, "refused", f"the run has {state.status}"))
    if state.build == body.build and state.stuck is None:
        return Discard("not-applicable", reply(state, message, "ok", "the run is on that build"))
    return Record(events=[RunMoved(build=body.build, reason=body.reason, actor=body.actor)], now=True)


def decide_resume(state: RunState, message: Message, body: ResumeRun) -> Decision:
    absent = _absent(state, body.run_id)
    if absent is not None:
        return Discard(absent, reply(state, message, "not-found"))
    if state.ended is not None and state.ended.status == "continued-as-new":
        return Discard("not-applicable", reply(state, message, "refused", "the run continued as a new one"))
    if not body.position and not body.command_id and not state.resumable and state.stuck is None:
        detail = f"the run is {state.status}: only failed and stuck runs resume; name a position to reset"
        return Discard("not-applicable", reply(state, message, "refused", detail))
    return Rewind()


def decide_wait(state: RunState, message: Message, body: WaitForResult, context: Context) -> Decision:
    del context
    absent = _absent(state, body.run_id)
    if absent is not None:
        return Discard(absent, reply(state, message, "not-found"))
    if state.ended is None:
        return AwaitEnd(body.reply_topic)
    return Serve([run_result(state, state.ended, body.reply_topic)])
