"""What is meant for one instance of a worker, client or API, and comes by its topic `inbox.{id}`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from perdure_schemas.common import Failure, Outcome, Payload
from perdure_schemas.events import EndStatus, Recorded


class HistoryPage(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    events: list[Recorded]
    after_seq: int
    last_seq: int
    """The end of what was asked for; the page may end before it."""


class AttemptCancelRequested(Struct, frozen=True, kw_only=True):
    task_id: str
    attempt_id: str
    reason: str = ""


ReplyStatus = Literal["ok", "not-found", "conflict", "refused"]


class StartReply(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    """The run in force: the one started, or the existing one."""
    status: ReplyStatus
    detail: str = ""


class RunResult(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    status: EndStatus | Literal["not-found"]
    generation: int = 0
    result: Payload | None = None
    failure: Failure | None = None
    next_run_id: str = ""


class TaskResult(Struct, frozen=True, kw_only=True):
    task_id: str
    outcome: Outcome | Literal["not-found"]
    result: Payload | None = None
    failure: Failure | None = None


class CommandReply(Struct, frozen=True, kw_only=True):
    """Answer to a signal, control, resume, move, retry… The id answered is the message's causation id."""

    status: ReplyStatus
    detail: str = ""
    run_id: str = ""
    generation: int = 0


class QueryResult(Struct, frozen=True, kw_only=True):
    query_id: str
    status: ReplyStatus
    result: Payload | None = None
    failure: Failure | None = None


class UpdateResult(Struct, frozen=True, kw_only=True):
    update_id: str
    status: ReplyStatus
    result: Payload | None = None
    failure: Failure | None = None
