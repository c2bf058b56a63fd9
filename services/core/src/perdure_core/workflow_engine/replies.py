"""Answers to whoever sent a message, and to whoever waits for a run's end."""

from __future__ import annotations

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.state import RunState
from perdure_schemas import ids
from perdure_schemas.events import RunEnded
from perdure_schemas.messages import (
    Body,
    CommandReply,
    ControlRun,
    Message,
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
        ) if topic:
            answer = CommandReply(status=status, detail=detail, run_id=state.run_id, generation=state.generation)
        case UpdateRun(reply_topic=topic) if topic and status != "ok":
            answer = UpdateResult(update_id=body.update_id, status=status)
        case QueryRun() if status != "ok":
            topic = body.query.reply_to.topic
            answer = QueryResult(query_id=body.query.query_id, status=status)
        case WaitForResult(reply_topic=topic) if status != "ok":
            answer = RunResult(workflow_id=body.workflow_id, run_id=body.run_id, status="not-found")
        case _:
            return []
    return [(topic, answering(message, answer))]


def answering(message: Message, body: Body) -> Message:
    """A message that answers `message`."""
    return Message(
        id=ids.derive_id(message.id, "reply", type(body).__name__),
        namespace=message.namespace,
        key="",
        at=message.at,
        body=body,
        causation_id=message.id,
    )


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
    message = Message(
        id=ids.derive_id(state.run_id, "result", state.generation, reply_topic),
        namespace=state.namespace,
        key="",
        at=state.ended_at,
        body=body,
    )
    return reply_topic, message
