"""Answers to whoever sent a message, and to whoever waits for a run's end."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.state import RunState
from perdure_schemas import topics
from perdure_schemas.common import Command, Failure, MoveCheck, Outcome, Parent
from perdure_schemas.events import EndStatus, RunEnded
from perdure_schemas.messages import (
    Body,
    ChildOutcome,
    CommandReply,
    ControlRun,
    Message,
    MoveChecked,
    MoveRun,
    QueryResult,
    QueryRun,
    ReplyStatus,
    ResumeRun,
    RunResult,
    SendSignal,
    StartReply,
    StartWorkflow,
    UpdateResult,
    UpdateRun,
    WaitForResult,
)


def reply(state: RunState, message: Message, status: ReplyStatus, detail: str = "") -> list[Published]:
    """The answer to `message`, if it asks for one."""
    body = message.body
    match body:
        case StartWorkflow(reply_topic=topic) if topic:
            run_id = body.run_id if status == "ok" and not detail else state.run_id
            answer: Body = StartReply(workflow_id=body.workflow_id, run_id=run_id, status=status, detail=detail)
        case (
            SendSignal(reply_topic=topic)
            | ControlRun(reply_topic=topic)
            | ResumeRun(reply_topic=topic)
            | MoveRun(reply_topic=topic)
            | MoveChecked(check=MoveCheck(reply_topic=topic))
        ) if topic:
            answer = CommandReply(status=status, detail=detail, run_id=state.run_id, generation=state.generation)
        case UpdateRun(reply_topic=topic) if topic and status != "ok":
            answer = UpdateResult(update_id=body.update_id, status=status)
        case QueryRun() if status != "ok":
            topic = body.query.reply_to.topic
            failure = Failure(name="Refused", message=detail) if detail else None
            answer = QueryResult(query_id=body.query.query_id, status=status, failure=failure)
        case WaitForResult(reply_topic=topic) if status != "ok":
            answer = RunResult(workflow_id=body.workflow_id, run_id=body.run_id, status="not-found")
        case _:
            return []
    asked = body.check.question if isinstance(body, MoveChecked) else message.id
    identity = (message.id, "reply", type(answer).__name__)
    return [(topic, outgoing(message.namespace, "", message.at, answer, *identity, causation_id=asked))]


def answer_again(state: RunState, message: Message, body: UpdateRun) -> list[Published]:
    """The answer of an update that was applied before, if it is still known, to who asks for it again."""
    if not body.reply_topic:
        return []
    known = state.answers.get(body.update_id)
    answer = (
        update_result(known)
        if known is not None
        else UpdateResult(
            update_id=body.update_id,
            status="refused",
            failure=Failure(name="Refused", message="this update was applied long ago, and its answer is not kept"),
        )
    )
    identity = (message.id, "answer")
    return [(body.reply_topic, outgoing(state.namespace, "", message.at, answer, *identity, causation_id=message.id))]


def update_result(command: Command) -> UpdateResult:
    """What the code answered."""
    return UpdateResult(
        update_id=command.target,
        status="ok" if command.failure is None else "refused",
        result=command.args,
        failure=command.failure,
    )


_CHILD_OUTCOMES: dict[EndStatus, Outcome] = {
    "completed": "completed",
    "failed": "failed",
    "canceled": "canceled",
    "terminated": "canceled",
    "timed-out": "timed-out",
}


def tell_parent(state: RunState, parent: Parent, ended: RunEnded) -> Published:
    """How the run ended, for the command that started it. `parent`: as it asked last."""
    body = ChildOutcome(
        workflow_id=parent.workflow_id,
        run_id=parent.run_id,
        command_id=parent.command_id,
        generation=parent.generation,
        outcome=_CHILD_OUTCOMES[ended.status],
        result=ended.result,
        failure=ended.failure,
    )
    identity = (state.run_id, "outcome", state.generation, parent.generation)
    outcome = outgoing(state.namespace, parent.workflow_id, state.ended_at, body, *identity)
    return topics.WORKFLOW_ENGINE, outcome


def child_refused(message: Message, parent: Parent, detail: str) -> Published:
    """The child was not started, and why."""
    body = ChildOutcome(
        workflow_id=parent.workflow_id,
        run_id=parent.run_id,
        command_id=parent.command_id,
        generation=parent.generation,
        outcome="failed",
        failure=Failure(name="AlreadyStarted", message=f"workflow id {message.key!r}: {detail}"),
    )
    outcome = outgoing(message.namespace, parent.workflow_id, message.at, body, message.id, "refused")
    return topics.WORKFLOW_ENGINE, outcome


def found_end(message: Message, run: RunState) -> list[Published]:
    """The answer to `message` from an earlier run, folded from the history in store; it may be empty."""
    body = message.body
    if isinstance(body, StartWorkflow):
        return _found_start(message, body, run)
    assert isinstance(body, WaitForResult)
    if run.ended is None:
        return reply(run, message, "not-found")
    return [run_result(run, run.ended, body.reply_topic)]


def _found_start(message: Message, body: StartWorkflow, run: RunState) -> list[Published]:
    if body.parent is None:
        return reply(run, message, "ok")
    if run.ended is None:
        return [child_refused(message, body.parent, "this run has ended and was purged")]
    return [tell_parent(run, body.parent, run.ended)]


def run_result(state: RunState, ended: RunEnded, reply_topic: str) -> Published:
    """How the run ended, for a client."""
    assert state.started is not None
    body = RunResult(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        status=ended.status,
        generation=state.generation,
        result=ended.result,
        failure=ended.failure,
        next_run_id=ended.next_run_id,
    )
    identity = (state.run_id, "result", state.generation, ended.status, reply_topic)
    return reply_topic, outgoing(state.namespace, "", state.ended_at, body, *identity)
