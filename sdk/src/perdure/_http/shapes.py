"""Answers of the API that are no messages of engines: what it puts around them, and what it says by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from perdure_runtime.pools import PoolBacklog
from perdure_runtime.ports import BuildCounts
from perdure_schemas.events import Recorded
from perdure_schemas.messages import RunChanged, TaskChanged


class Refusal(Struct, frozen=True):
    """Nothing was done, and why."""

    error: str


class StillOpen(Struct, frozen=True, kw_only=True):
    """The answer is not there yet."""

    status: Literal["open"] = "open"
    workflow_id: str = ""
    run_id: str = ""
    task_id: str = ""
    update_id: str = ""


class RunList(Struct, frozen=True):
    """A page of runs."""

    runs: Sequence[RunChanged]
    cursor: str | None


class History(Struct, frozen=True):
    """Events of a run."""

    events: Sequence[Recorded]


class TaskList(Struct, frozen=True):
    """Tasks of a run."""

    tasks: Sequence[TaskChanged]


class Counts(Struct, frozen=True):
    """How many runs there are."""

    counts: dict[str, dict[str, int]]


class Backlogs(Struct, frozen=True):
    """What waits for workers, and what they have."""

    backlog: Sequence[PoolBacklog]
    total: int


class BuildRuns(BuildCounts, frozen=True, kw_only=True):
    """Runs of one workflow that are pinned to one build."""

    open: int


class Builds(Struct, frozen=True):
    """Runs by build."""

    builds: Sequence[BuildRuns]


class Topics(Struct, frozen=True):
    """Topics of workers."""

    topics: list[str]
