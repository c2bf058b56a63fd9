"""Which message is asked for at which path: one table for the API and its client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from perdure_schemas import topics
from perdure_schemas.messages import (
    CancelTask,
    CommandReply,
    CompleteTask,
    ControlRun,
    DispatchTask,
    MoveRun,
    QueryResult,
    QueryRun,
    ResumeRun,
    RetryTask,
    RunResult,
    SendSignal,
    StartReply,
    StartWorkflow,
    TaskResult,
    UpdateResult,
    UpdateRun,
    WaitForResult,
    WaitForTask,
)

PREFIX = "/api/v1/namespaces/{namespace}"
WAIT_SECONDS_MAX = 60
"""A longer wait is asked for again: proxies end requests that say nothing for a minute or so."""
STATUS_CODES = {"ok": 200, "not-found": 404, "conflict": 409, "refused": 409}
NO_SUCH_PATH = "there is nothing at this path: the API's paths begin with /api/v1/namespaces/"
STILL_OPEN = 202
"""The answer is not there yet: ask again."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One message, and where it is asked for."""

    path: str
    """Below the prefix; names in braces are fields of the message."""
    body: type[Struct]
    reply: type[Struct]
    summary: str
    fields: frozenset[str]
    """What a caller may give in the JSON body."""
    topic: str = topics.WORKFLOW_ENGINE
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fields that the path stands for."""
    reads: bool = False
    """GET, with the fields as parameters."""
    waits: bool = False
    """`wait` among the parameters says for how long to wait for the reply, which the user's code makes."""
    end: type[Struct] | None = None
    """What follows the reply: with `wait` among the parameters the answer has it as `end`, if it comes in time."""


def _of_run(path: str, body: type[Struct], reply: type[Struct], summary: str, *fields: str, **fixed: Any) -> Endpoint:
    return Endpoint(f"/runs/{{workflow_id}}/{path}", body, reply, summary, frozenset({"run_id", *fields}), fixed=fixed)


def _of_task(path: str, body: type[Struct], summary: str, *fields: str) -> Endpoint:
    return Endpoint(
        f"/tasks/{{task_id}}/{path}", body, CommandReply, summary, frozenset(fields), topic=topics.TASK_ENGINE
    )


_WHY = ("reason", "actor")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/runs", StartWorkflow, StartReply, "Start a run; the same run_id again is the same run.",
        frozenset({"workflow_id", "run_id", "name", "args", "options", "conflict_policy", "reuse_policy", "build"}),
        end=RunResult,
    ),
    Endpoint(
        "/runs/{workflow_id}/result", WaitForResult, RunResult, "Wait for the end of a run.",
        frozenset({"run_id"}), reads=True,
    ),
    _of_run("signals/{channel}", SendSignal, CommandReply, "Send a value to a channel.",
            "payload", "sender", "number", "after_number"),
    _of_run("queries/{name}", QueryRun, QueryResult, "Ask the run's code.", "args", "query_id"),
    Endpoint(
        "/runs/{workflow_id}/updates/{name}", UpdateRun, UpdateResult, "Have the run's code do something.",
        frozenset({"run_id", "args", "update_id"}), waits=True,
    ),
    *(_of_run(action, ControlRun, CommandReply, summary, *_WHY, action=action) for action, summary in (
        ("cancel", "Ask the run to end; its code may tidy up."),
        ("terminate", "End the run at once."),
        ("pause", "Take no further decisions; tasks under way go on."),
        ("unpause", "Undo pause."),
    )),
    _of_run("resume", ResumeRun, CommandReply, "Go on from just before the failure.", *_WHY, "edits", "only",
            "command_id", "anyway"),
    _of_run("reset", ResumeRun, CommandReply, "Go on from just before a position.", *_WHY, "position",
            "edits", "anyway"),
    _of_run("move", MoveRun, CommandReply, "Pin the run to another build.", *_WHY, "build"),
    Endpoint(
        "/tasks", DispatchTask, TaskResult, "Run a task that belongs to no workflow, and wait for its outcome.",
        frozenset({"task_id", "name", "args", "options"}), topic=topics.TASK_ENGINE,
    ),
    Endpoint(
        "/tasks/{task_id}/result", WaitForTask, TaskResult, "Wait for the outcome of a stand-alone task.",
        frozenset(), topic=topics.TASK_ENGINE, reads=True,
    ),
    _of_task("cancel", CancelTask, "Stop the running attempt, and try no other.", *_WHY),
    _of_task("retry", RetryTask, "A new attempt now, with other arguments if any are given.", *_WHY, "args"),
    _of_task("complete", CompleteTask, "Give the outcome from outside.", *_WHY, "outcome", "result", "failure"),
)  # fmt: skip


def endpoint_of(body: Struct) -> Endpoint:
    """Where this message is asked for.

    Raises:
        LookupError: clients do not send it.
    """
    for endpoint in ENDPOINTS:
        if type(body) is not endpoint.body or any(getattr(body, k) != v for k, v in endpoint.fixed.items()):
            continue
        if isinstance(body, ResumeRun) and bool(body.position) != endpoint.path.endswith("reset"):
            continue
        return endpoint
    raise LookupError(f"{type(body).__name__} is no message of a client")
