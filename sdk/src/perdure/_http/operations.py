"""What each request of the API does, for the OpenAPI document: what the routes themselves do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from perdure._http import shapes
from perdure._http.pool_forms import PoolForm, RoutingForm
from perdure_runtime.announced import Announced
from perdure_runtime.ports import Routing
from perdure_schemas.blobs import Blob
from perdure_schemas.messages import (
    CommandReply,
    QueryResult,
    RunChanged,
    RunResult,
    StartReply,
    TaskResult,
    UpdateResult,
)

BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, CONFLICT, TOO_LARGE = 400, 401, 404, 409, 413
OPEN, DEFECT, UNAVAILABLE = 202, 500, 503

CODES: Mapping[int, str] = {
    200: "The answer.",
    201: "It is stored.",
    OPEN: "The answer is not there yet. Ask again, with the same ids.",
    BAD_REQUEST: "The request is wrong, and nothing was done; `error` says where. The same again gives the same.",
    UNAUTHORIZED: "The token is missing or wrong: show it as `Authorization: Bearer …`.",
    NOT_FOUND: "There is no such thing, or it is past its retention; or the namespace or the path is wrong (`error`).",
    CONFLICT: "Not done: the state does not allow it, or the code refused. `detail` or `failure` says why. The same"
    " again gives the same until that has changed.",
    TOO_LARGE: "The body or a value is too large; `error` says what may be had.",
    DEFECT: "A defect of the API; its log says more. Tell us, and try again with the same ids.",
    UNAVAILABLE: "Engines, broker or store cannot be reached. It may be done or not: ask again after a second or more,"
    " with the same ids.",
}
"""What each status code means, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    id: str
    """What generated clients call it."""
    does: str
    reply: type[Struct] | None
    """The answer; `None`: bytes."""
    refusals: tuple[int, ...] = ()
    """Codes that have the reply as body, too."""
    body: type[Struct] | None = None
    """Where the body is no message; those of `ENDPOINTS` are."""
    needed: tuple[str, ...] = ()
    """Fields of the body that have to be given, where it is a message."""
    success: int = 200
    waits: bool = False
    """It may be answered by 202."""


def _steering(id: str, does: str, *needed: str) -> Operation:
    return Operation(
        id=id, does=does, reply=CommandReply, refusals=(NOT_FOUND, CONFLICT), needed=needed, waits=True
    )  # fmt: skip


_RUN = "/runs/{workflow_id}"
_TASK = "/tasks/{task_id}"
_OF_RUNS: Mapping[tuple[str, str], Operation] = {
    ("post", "/runs"): Operation(
        id="startRun", reply=StartReply, refusals=(CONFLICT,), needed=("name",), waits=True,
        does="Starts a run of a workflow, and answers once it is recorded. With the same `workflow_id` and `run_id` it"
        " can be repeated: it is the same run. A workflow that no worker has announced is started, too, and waits;"
        " `warning` says so. With `wait`, the answer has the run's `end` if it comes in time; else ask for its result.",
    ),
    ("get", "/runs"): Operation(
        id="listRuns", reply=shapes.RunList,
        does="Runs, newest first, a page at a time: those for which all conditions hold. It follows what happens by a"
        " moment: a run that was started just now may be missing.",
    ),
    ("get", _RUN): Operation(
        id="getRun", reply=RunChanged,
        does="Where a run stands, as lists show it. It follows what happens by a moment, as they do.",
    ),
    ("get", f"{_RUN}/result"): Operation(
        id="getResult", reply=RunResult, refusals=(NOT_FOUND,), waits=True,
        does="Waits for the end of a run, at most `wait` seconds. 200 says how it ended, well or not: see `status`."
        " 202: it is open; ask again.",
    ),
    ("get", f"{_RUN}/history"): Operation(
        id="getHistory", reply=shapes.History,
        does="Events of a run, in order. For the next page pass the `seq` of the last one as `after`; an empty list is"
        " the end, or there is no such run.",
    ),
    ("get", f"{_RUN}/tasks"): Operation(
        id="listTasksOfRun", reply=shapes.TaskList,
        does="Tasks of a run that took longer than a second, or failed. The history knows first that one has ended.",
    ),
    ("post", f"{_RUN}/signals/{{channel}}"): _steering(
        "signalRun",
        "Sends a value to a channel of the run, and answers once it is recorded. Where there is no run, it is kept for"
        " an hour, for one that is started by then; `warning` says so. A signal without `sender` and `number` that is"
        " sent again is another signal.",
    ),
    ("post", f"{_RUN}/queries/{{name}}"): Operation(
        id="queryRun", reply=QueryResult, refusals=(NOT_FOUND, CONFLICT), waits=True,
        does="Asks the run's code, which changes nothing; also of a run that has ended. 409: it raised, or has no such"
        " query. 202: no worker has answered within 30 seconds; is one there?",
    ),
    ("post", f"{_RUN}/updates/{{name}}"): Operation(
        id="updateRun", reply=UpdateResult, refusals=(NOT_FOUND, CONFLICT), waits=True,
        does="Has the run's code do something, and waits for its answer, at most `wait` seconds. 409: it raised, or the"
        " run has ended. 202: it is not done yet, and may be done later; ask again with the same `update_id` and it is"
        " done once.",
    ),
    ("post", f"{_RUN}/cancel"): _steering(
        "cancelRun", "Asks the run to end; its code may tidy up first, or go on."
    ),
    ("post", f"{_RUN}/terminate"): _steering("terminateRun", "Ends the run at once; its code gets no word."),
    ("post", f"{_RUN}/pause"): _steering("pauseRun", "Takes no further decisions; tasks under way go on."),
    ("post", f"{_RUN}/unpause"): _steering("unpauseRun", "Undoes a pause."),
    ("post", f"{_RUN}/resume"): _steering(
        "resumeRun",
        "Has a failed or stuck run go on from just before its failure; what succeeded is not done again.",
    ),
    ("post", f"{_RUN}/reset"): _steering(
        "resetRun",
        "Has a run go on from just before a command, also one that has ended well: that command, and what follows, is"
        " done anew.",
        "position",
    ),
    ("post", f"{_RUN}/move"): _steering(
        "moveRun",
        "Pins the run to another build of its code, once a worker of that build has replayed its history.",
        "build",
    ),
    ("get", "/counts"): Operation(
        id="countRuns", reply=shapes.Counts, does="How many runs there are, per name of the workflow and status."
    ),
}  # fmt: skip
_OF_TASKS: Mapping[tuple[str, str], Operation] = {
    ("post", "/tasks"): Operation(
        id="runTask", reply=TaskResult, needed=("name",), waits=True,
        does="Runs a task that belongs to no workflow, and waits for its outcome for 30 seconds. 200 says how it ended,"
        " well or not: see `outcome`. 202: it goes on; ask for its result by `task_id`.",
    ),
    ("get", f"{_TASK}/result"): Operation(
        id="getTaskResult", reply=TaskResult, refusals=(NOT_FOUND,), waits=True,
        does="Waits for the outcome of a stand-alone task, at most `wait` seconds. 202: it goes on; ask again.",
    ),
    ("post", f"{_TASK}/cancel"): _steering("cancelTask", "Stops the running attempt, and tries no other."),
    ("post", f"{_TASK}/retry"): _steering("retryTask", "A new attempt now, with other arguments if any are given."),
    ("post", f"{_TASK}/complete"): _steering(
        "completeTask", "Gives the outcome from outside: of a task that its code has delegated, or in place of one"
        " that should not run any more.", "outcome",
    ),
}  # fmt: skip
_OF_WORKERS: Mapping[tuple[str, str], Operation] = {
    ("get", "/announced"): Operation(
        id="getAnnounced", reply=Announced, does="Names of the workflows and tasks that workers have."
    ),
    ("get", "/backlog"): Operation(
        id="getBacklog", reply=shapes.Backlogs,
        does="What waits for workers, and what they have; at most two seconds old. What was published in one batch"
        " counts once while it waits. Empty under `perdure dev`.",
    ),
    ("get", "/builds"): Operation(
        id="countRunsByBuild", reply=shapes.Builds, does="How many runs there are, per workflow, build and status."
    ),
    ("get", "/routing/{workflow}"): Operation(
        id="getRouting", reply=Routing, does="Which build and which defaults new runs of a workflow get."
    ),
    ("put", "/routing/{workflow}"): Operation(
        id="putRouting", reply=Routing, body=RoutingForm,
        does="Says which build and which defaults new runs of a workflow get. What is left out is none.",
    ),
    ("post", "/pools"): Operation(
        id="makePools", reply=shapes.Topics, body=PoolForm,
        does="Makes the topics of workers, so that what is sent from now on waits for the first of them.",
    ),
    ("put", "/blobs/{blob_id}"): Operation(
        id="putBlob", reply=Blob, success=201,
        does="Stores the bytes of a large value, for workers that speak messages: who speaks JSON to this API has no"
        " need of it. The answer is what a payload refers to it by; see the wire contract.",
    ),
    ("get", "/blobs/{blob_id}"): Operation(
        id="getBlob", reply=None, does="The bytes that a payload of a message refers to."
    ),
}  # fmt: skip
OPERATIONS = {**_OF_RUNS, **_OF_TASKS, **_OF_WORKERS}
"""By method and path below the prefix."""

_WHO = {"run_id": "Of the one run among those that had the workflow id; left out: the current one."}
_NEEDED_RUN = {"run_id": "Of the run: the one that a start or `GET …/runs/{workflow_id}` names."}
_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "updateRun": {"wait": "Seconds to wait for the answer."},
    "startRun": {"wait": "Seconds to wait for the end of the run as well."},
    "listRuns": {
        "name": "Of the workflow.",
        "status": "One of `running`, `paused`, `stuck`, `failed`, `completed`, `canceled`, `terminated`, `timed-out`,"
        " `continued-as-new`.",
        "tag": "One that the run has.",
        "workflow_id": "Whose runs: they follow each other.",
        "attribute": "A search attribute that the run has, as `name=value`.",
        "waits_for": "What it waits for, as the list shows it.",
        "started_from": "Started then or later, in epoch milliseconds.",
        "started_before": "Started before then, in epoch milliseconds.",
        "limit": "Runs of a page.",
        "cursor": "That of the page before, with the same conditions; left out: the first page.",
    },
    "getRun": _WHO,
    "getResult": {
        **_WHO,
        "wait": "Seconds to wait.",
        "follow": "`true`: of a run that continued as new, the end of the last one. `false`: of this very run.",
    },
    "getHistory": {**_NEEDED_RUN, "after": "The `seq` of the last event that you have.", "limit": "Events of a page."},
    "listTasksOfRun": _NEEDED_RUN,
    "getTaskResult": {"wait": "Seconds to wait.", "follow": "Of no meaning for a task."},
    "getBacklog": {
        "kind": "What the workers run; left out: both.",
        "name": "Of the workflow or task; may be given several times. Left out: all.",
        "build": "What workers of this build may do, which is what any build may do as well. Left out: all.",
    },
    "countRunsByBuild": {"name": "Of the workflow; left out: all."},
    "getBlob": {
        "size": "Bytes, as the reference says.",
        "sha256": "Of the bytes, as the reference says.",
        "workflow_id": "As the reference says; empty: it has none.",
        "run_id": "As the reference says; empty: it has none.",
    },
}


def parameter_meaning(operation: Operation, name: str) -> str:
    """Of a parameter of the query. KeyError: nobody has said."""
    return _PARAMETERS[operation.id][name]
