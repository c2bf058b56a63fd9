"""What the fields of requests and answers mean to who speaks HTTP: the descriptions of the OpenAPI document.

The messages' own docstrings are for engines and workers, to whom some of these fields say something else.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from perdure._http import shapes
from perdure._http.blobs import Gone
from perdure._http.pool_forms import DefaultsForm, PoolForm, RoutingForm
from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.announced import Announced
from perdure_runtime.pools import PoolBacklog
from perdure_runtime.ports import Routing
from perdure_schemas.blobs import Blob
from perdure_schemas.common import Failure, Query, RetryPolicy, RunOptions, TaskOptions, WorkflowRef
from perdure_schemas.events import Edit, Recorded
from perdure_schemas.messages import (
    CommandReply,
    CompleteTask,
    DispatchTask,
    MoveRun,
    QueryResult,
    ResumeRun,
    RetryTask,
    RunChanged,
    RunResult,
    SendSignal,
    StartReply,
    StartWorkflow,
    TaskChanged,
    TaskResult,
    UpdateResult,
    UpdateRun,
)

_COMMON = {
    "workflow_id": "The id that the starter of the run chose, or the API.",
    "run_id": "Of the one run among those that had the workflow id; empty or left out: the current one.",
    "task_id": "Of the task: the id that its starter chose, or the API; of a task of a workflow, that of its command.",
    "reason": "Why, for people: it is recorded.",
    "actor": "Who wants it, for people: it is recorded.",
    "args": "Arguments, in the order of the declaration.",
    "status": "What became of the request.",
    "detail": "Why it was not done, or what to know of it, in words; may be empty.",
    "result": "What it returned; null if it returned null, or has no result.",
    "failure": "Why there is no result; null if nothing failed.",
    "generation": "How many times the run was rewound, by a resume or a reset.",
    "warning": "Set if what was asked for may be a slip: nobody has announced the name, or there is no such run yet.",
    "update_id": "Of the update: ask again with it, and it is done once.",
    "query_id": "Of the query.",
}
_ROUTING = {
    "current": "The build that new runs get; null: any build may take them.",
    "ramping": "The build that a share of new runs get instead; null: none.",
    "ramping_percent": "The share, in percent of the workflow ids.",
    "defaults": "What runs get whose start gives none of its own.",
}
_DEFAULTS = {
    "run_timeout_ms": "From start to end; null: no limit.",
    "retention_ms": "How long a run is kept after its end; null: 7 days.",
}
_OF_RUNS: Mapping[type[Struct], Mapping[str, str]] = {
    StartWorkflow: {
        "workflow_id": "1 to 400 printable characters, and not `.` or `..`, by which the run is found. Left out: the"
        " run id.",
        "run_id": "Choose a random one, such as a UUID: the same start again is then the same run. Left out: one"
        " that follows from the `Idempotency-Key` and from what is asked, or that the API makes; the answer has it.",
        "name": "Of the workflow.",
        "options": "How the run is kept.",
        "conflict_policy": "If a run of the workflow id is open: refuse with 409, give that run, or terminate it and"
        " start another.",
        "reuse_policy": "If the last run of the workflow id has ended and is still kept: whether another one begins."
        " Where none does, the answer is 409, or that run if `conflict_policy` is `use-existing`.",
        "build": "Pins the run to a build of the workers; null: as the routing of the workflow says.",
    },
    RunOptions: {
        "run_timeout_ms": "From start to end, after which the run ends `timed-out`. null: the default of the workflow,"
        " or no limit.",
        "retention_ms": "How long the run is kept after its end. Left out: the default of the workflow, or 7 days.",
        "retention_given": "Set by the API where `retention_ms` is given; leave it out.",
        "tags": "Words to list runs by.",
        "attributes": "A JSON object of search attributes, to list runs by. Never encrypted.",
        "memo": "Any value to keep with the run.",
    },
    SendSignal: {
        "payload": "The value.",
        "sender": "Who numbers the signals, say a random id of your process. Needed for a signal that may be repeated;"
        " left out: the API numbers it, and a repetition is another signal.",
        "number": "Counts the signals of this sender to this workflow id, from 1: one number is recorded once.",
        "after_number": "The number of this sender that has to be recorded before this one; 0: none.",
    },
    Query: {"query_id": "Names the question; left out: the API makes one."},
    UpdateRun: {
        "update_id": "Choose a random one, to ask again with it. Left out: one that follows from the"
        " `Idempotency-Key` and from what is asked, or that the API makes; the answer has it.",
    },
    ResumeRun: {
        "position": "The position of the command, as `perdure show` and the history have it, such as `4` or `2.1`.",
        "edits": "Corrections of tasks, by position.",
        "only": "Leave a parent alone that took this run's failure.",
        "command_id": "A child's engine sets it; leave it out.",
        "anyway": "Though tasks that would be done again, or are not known to the code any more, have completed: they"
        " stay done.",
    },
    Edit: {
        "position": "Of the task.",
        "args": "Other arguments, all of them; null: as they are.",
        "result": "A result instead of the task, which is not run; null: none is given.",
    },
    MoveRun: {"build": "The build; null: any."},
    StartReply: {
        "workflow_id": "By which the run is found.",
        "run_id": "Of the run in force: the one that was started, or the one that was there.",
        "end": "How the run ended, if `wait` was given and it ended in time.",
    },
    CommandReply: {"run_id": "Of the run that it was about; empty: of none, or of a task."},
    RunResult: {
        "run_id": "Of the run that ended, which is another one than was asked for if that continued as new.",
        "status": "How the run ended; `not-found`: there is none, or it is past its retention.",
        "next_run_id": "Of the run that continues this one, where it continued as new; else empty.",
    },
    RunChanged: {
        "run_id": "Of this run: others may have had, or have, the workflow id.",
        "name": "Of the workflow.",
        "version": "Grows with each change of the run.",
        "status": "Where it stands: the first four are open or can be resumed, the others are ends.",
        "started_at": "When it was started.",
        "changed_at": "When it last changed.",
        "ended_at": "When it ended; null: it has not.",
        "tags": "As its start gave them.",
        "attributes": "Its search attributes, a JSON object; null: it has none.",
        "build": "The build that it is pinned to; null: none.",
        "parent_workflow_id": "Of the run whose child it is; empty: it is none.",
        "waits_for": "What it waits for, for people: `task charge (3)`, `timer`, `signal approvals`.",
        "last_error": "Why it failed or is stuck; else empty.",
        "first_seq": "Of its last change, the number of the first event.",
        "events": "Of its last change; empty in lists.",
    },
    Recorded: {
        "seq": "Its number in the run, from 1.",
        "at": "When it was recorded.",
        "cause": "Id of the message that caused it.",
        "event": "What was recorded.",
    },
}
_OF_TASKS: Mapping[type[Struct], Mapping[str, str]] = {
    DispatchTask: {
        "task_id": "Choose a random one: the same task again is then not run again. Left out: one that"
        " follows from the `Idempotency-Key` and from what is asked, or that the API makes; the answer has it.",
        "name": "Of the task.",
        "options": "How it is supervised.",
    },
    TaskOptions: {
        "retry": "When a failed attempt is tried again.",
        "queue_timeout_ms": "From dispatch until an attempt starts; null: no limit.",
        "attempt_timeout_ms": "From an attempt's dispatch until its outcome; null: no limit.",
        "heartbeat_timeout_ms": "Between two heartbeats of one attempt; null: none are asked for.",
        "total_timeout_ms": "From dispatch until the last outcome, retries included; null: no limit.",
        "build": "Pins it to a build of the workers; null: any.",
        "tags": "Words for people.",
    },
    RetryPolicy: {
        "attempts_max": "Attempts in total; 0: no limit.",
        "initial_delay_ms": "Before the second attempt.",
        "delay_factor": "What each further delay is multiplied by.",
        "delay_max_ms": "No delay is longer.",
        "jitter": "Each delay is multiplied by a number between 1 - jitter and 1 + jitter.",
        "non_retryable": "Names of errors that end the task at once.",
    },
    RetryTask: {"args": "Other arguments, all of them; null: as they are."},
    CompleteTask: {
        "outcome": "What it shall be: `completed` or `skipped` with a `result`, `failed` with a `failure`.",
        "result": "Of a task that completed, or is skipped.",
        "failure": "Of one that failed.",
    },
    TaskResult: {"outcome": "How it ended; `not-found`: there is no stand-alone task of this id."},
    TaskChanged: {
        "name": "Of the task.",
        "version": "Grows with each change of the task.",
        "status": "Where it stands.",
        "attempt": "The number of the attempt, from 1; in `waiting-retry` that of the next one.",
        "at": "When it came to stand so.",
        "workflow": "The run that it belongs to; null: none.",
        "next_attempt_at": "When the next attempt comes; null: none is waited for.",
        "progress": "What its last heartbeat told.",
        "failure": "Of the last attempt that failed; null: none did.",
        "worker": "The worker that has the attempt, as it was last heard of; of a `queued` one the worker that had it"
        " and is gone; of one that waits for its next attempt, the last; else empty.",
    },
    WorkflowRef: {"run_id": "Of the run.", "name": "Of the workflow."},
}
_OTHERS: Mapping[type[Struct], Mapping[str, str]] = {
    Failure: {
        "name": "The error's type, as its own language calls it: `ValueError`.",
        "message": "What it says.",
        "stack": "The traceback, for people.",
        "details": "Any value that came with it.",
        "cause": "The error that led to it; null: none is known.",
        "retryable": "Whether another attempt may do better.",
        "next_delay_ms": "The task's own wish for the next attempt; null: none.",
    },
    Announced: {
        "workflows": "Names, in order.",
        "tasks": "Names, in order.",
        "broken": "Of a `perdure dev`: why no worker can serve its app now; empty: one does.",
        "left_out": "Of a `perdure dev`: workflows that its worker refuses to serve, and why.",
        "database": "Of a `perdure dev`: the file that its engine is on.",
    },
    PoolBacklog: {
        "kind": "What its workers run.",
        "name": "Of the workflow or task.",
        "build": "Of the workers; null: what any build may do.",
        "waiting": "Messages that no worker has.",
        "in_flight": "Messages that workers have and have not answered.",
    },
    shapes.BuildRuns: {
        "name": "Of the workflow.",
        "build": "That the runs are pinned to; null: none.",
        "counts": "Runs by status.",
        "open": "Those in a status that is no end.",
    },
    Routing: _ROUTING,
    RoutingForm: _ROUTING,
    RunDefaults: _DEFAULTS,
    DefaultsForm: _DEFAULTS,
    PoolForm: {
        "kind": "What the workers will run.",
        "names": "Of the workflows or tasks.",
        "build": "Of the workers; null: they have none.",
    },
    Blob: {
        "id": "As in the path.",
        "size": "Bytes.",
        "sha256": "Of the bytes, in hex.",
        "workflow_id": "Whose own it is; left out: it is in transit.",
        "run_id": "Whose own it is; left out: it is in transit.",
    },
    Gone: {"gone": "true: the bytes are not there any more, with their run or after 30 days in transit."},
    shapes.Refusal: {"error": "What is wrong and what to do, in words."},
    shapes.StillOpen: {
        "status": "Not there yet: ask again.",
        "workflow_id": "Of the run; empty: it is about a task.",
        "run_id": "Of a start: that of the run; else as it was asked for.",
        "task_id": "Of the task; empty: it is about a run.",
        "update_id": "Of an update: ask again with it; else empty.",
    },
    shapes.RunList: {
        "runs": "Newest first, without their events.",
        "cursor": "Of the next page; null: this is the last one.",
    },
    shapes.History: {"events": "In order."},
    shapes.TaskList: {"tasks": "In no order that is promised."},
    shapes.Counts: {"counts": "By name of the workflow, and then by status."},
    shapes.Backlogs: {"backlog": "Of each pool.", "total": "All that waits or is in flight in them."},
    shapes.Builds: {"builds": "Of each workflow and build."},
    shapes.Topics: {"topics": "That there are now."},
}
_BY_KIND = {**_OF_RUNS, **_OF_TASKS, **_OTHERS}

KINDS: Mapping[type[Struct], str] = {
    RunOptions: "How a run is kept.",
    Edit: "A correction of one task, at a resume or reset: other arguments, or a result instead of it.",
    StartReply: "What became of a start.",
    CommandReply: "What became of a request that changes a run or a task.",
    RunResult: "How a run ended.",
    QueryResult: "What a query gave.",
    UpdateResult: "What an update gave.",
    RunChanged: "Where a run stands.",
    Recorded: "One event of a run's history.",
    TaskOptions: "How a task is supervised.",
    RetryPolicy: "When a failed attempt is tried again. Left out: never.",
    TaskResult: "How a task ended.",
    TaskChanged: "Where a task stands.",
    WorkflowRef: "The run that a task belongs to.",
    Failure: "An error, as every language can read it.",
    Announced: "What workers have.",
    PoolBacklog: "What waits for the workers of one workflow or task and of one build.",
    shapes.BuildRuns: "Runs of one workflow that are pinned to one build.",
    Routing: "What new runs of a workflow get.",
    RoutingForm: "What new runs of a workflow are to get.",
    RunDefaults: "What runs get whose start gives none of its own.",
    DefaultsForm: "What runs are to get whose start gives none of its own.",
    PoolForm: "Workers that are to come.",
    Blob: "What a payload refers to stored bytes by.",
    Gone: "Stored bytes that are not there any more. Any other 404 is a proxy's, or of a wrong address.",
    shapes.Refusal: "Nothing was done, and why.",
    shapes.StillOpen: "The answer is not there yet.",
    shapes.RunList: "A page of runs.",
    shapes.History: "A page of events.",
    shapes.TaskList: "Tasks of a run.",
    shapes.Counts: "How many runs there are.",
    shapes.Backlogs: "What waits for workers, and what they have.",
    shapes.Builds: "How many runs each build has.",
    shapes.Topics: "Topics of workers.",
}
"""Of objects."""

PATH = {
    "namespace": "The one that the API serves: `default` unless it was told otherwise. Any other one is a 404.",
    "workflow_id": "Of the run; escaped, a `/` as `%2F`.",
    "task_id": "Of the task; escaped as a workflow id.",
    "channel": "Name of the channel.",
    "name": "Of the query or update, as the workflow's class calls it.",
    "workflow": "Name of the workflow.",
    "blob_id": "1 to 64 of `A-Z`, `a-z`, `0-9`, `_` and `-`; choose a random one.",
}
"""Of the parts of paths."""


def meaning(kind: type[Struct], field: str) -> str:
    """What the field of a request or an answer means. KeyError: nobody has said."""
    return _BY_KIND.get(kind, {}).get(field) or _COMMON[field]
