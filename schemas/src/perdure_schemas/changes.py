"""Events: what read models and listeners see of runs and tasks."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from perdure_schemas.common import Failure, Payload, WorkflowRef
from perdure_schemas.events import Recorded, RunStatus


class RunChanged(Struct, frozen=True, kw_only=True):
    """One commit of a run: its events, and the summary of the run after it."""

    workflow_id: str
    run_id: str
    name: str
    version: int
    """Position of the commit: an older one changes nothing in a read model."""
    status: RunStatus
    generation: int
    started_at: int
    """Epoch milliseconds, as are the other times."""
    changed_at: int
    ended_at: int | None = None
    tags: list[str] = []
    attributes: Payload | None = None
    """What it can be searched by: a JSON object."""
    build: str | None = None
    parent_workflow_id: str = ""
    waits_for: str = ""
    """For display: `task charge (3)`, `timer`, `signal approvals`."""
    last_error: str = ""
    first_seq: int = 0
    events: list[Recorded] = []


class RunPurged(Struct, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    name: str


TaskStatus = Literal["queued", "running", "waiting-retry", "completed", "failed", "timed-out", "canceled", "skipped"]


class TaskChanged(Struct, frozen=True, kw_only=True):
    """Where a task stands, if it has more than one attempt or takes longer than a moment."""

    task_id: str
    name: str
    version: int
    status: TaskStatus
    attempt: int
    at: int
    workflow: WorkflowRef | None = None
    next_attempt_at: int | None = None
    progress: Payload | None = None
    failure: Failure | None = None
    worker: str = ""
