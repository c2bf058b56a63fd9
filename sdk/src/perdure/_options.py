"""The options of tasks and workflows: each is told here once, for every call that takes it.

`None` says the same as leaving an option out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from perdure._duration import Duration
from perdure.retry import Retry
from perdure_schemas.common import BuildPolicy, ClosePolicy, ConflictPolicy, ReusePolicy

Match: TypeAlias = Literal["args", "name"]
"""What replay compares at a recorded position: name and arguments, or the name alone."""
Wait: TypeAlias = Literal["accepted", "sent"]


class TaskDeclared(TypedDict, total=False):
    """Of a task where it is declared: `@task(...)`, `@service(...)`, `@method(...)`."""

    retry: Retry | None
    """When a failed attempt is tried again."""
    timeout: Duration | None
    """Of one attempt, from its dispatch."""
    queue_timeout: Duration | None
    """From dispatch until an attempt starts."""
    heartbeat_timeout: Duration | None
    """Between two heartbeats of one attempt."""
    total_timeout: Duration | None
    """From the task's dispatch, retries included."""
    tags: Sequence[str] | None
    """To find it by; replace those declared."""


class TaskCalled(TaskDeclared, total=False):
    """Of one call of a task: `charge.options(...)("o-1")`."""

    build: str | None
    """Run it on workers of this build."""


class _Kept(TypedDict, total=False):
    """Of a run, whoever starts it."""

    timeout: Duration | None
    """Of the run, from start to end; the default of the workflow unless given, where one is declared."""
    retention: Duration | None
    """How long the run is kept after its end; unless given the default of the workflow, or 7 days."""
    tags: Sequence[str] | None
    """To find it by; replace those declared."""


class WorkflowDeclared(_Kept, total=False):
    """Of a workflow where it is declared: `@workflow(...)`."""

    close_policy: ClosePolicy | None
    """Of a child when its parent ends first."""
    build_policy: BuildPolicy | None
    """Of a child: the current build, or its parent's ("inherit")."""
    match: Match | None
    """What replay compares of the commands of this workflow: "name" lets their arguments change."""


class Started(_Kept, total=False):
    """Of one run that a client starts: `client.execute(order, "sku-1", id="o-1")`."""

    id: str | None
    """The workflow id; one is made up unless given."""
    conflict: ConflictPolicy | None
    """If a run with this id is in force: "fail" (unless given), "use-existing" or "terminate-existing"."""
    reuse: ReusePolicy | None
    """If the last run with this id has ended, and is still kept: another begins "always" (unless given),
    "after-failure" (unless it completed) or "never". Where none begins, `conflict="use-existing"` gives the run that
    has ended."""
    attributes: Mapping[str, Any] | None
    """To search for, by name."""
    memo: Any
    """Shown with the run, not searched."""
    build: str | None
    """Pin the run to this build."""


class StartedAndWaited(Started, total=False):
    """Of `client.start`."""

    wait: Wait
    """Until the engine has recorded the start ("accepted", unless given), or the broker has it ("sent")."""


class WorkflowChanged(WorkflowDeclared, Started, total=False):
    """Of one run, however it is started: `order.options(...)`."""


def check_options(given: Collection[str], kind: Any, what: str) -> None:
    """Raises TypeError unless all are keys of the TypedDict, as a call with an unknown keyword does."""
    known: frozenset[str] = kind.__optional_keys__
    for name in given:
        if name not in known:
            raise TypeError(f"{what} has no option {name!r}; it has {', '.join(sorted(known))}")


def check_choice(given: str | None, choices: Any, what: str) -> None:
    """Raises ValueError unless it is one of the Literal's, or not given."""
    known = get_args(choices)
    if given is not None and given not in known:
        raise ValueError(f"{what} is one of {', '.join(map(repr, known))}, not {given!r:.80}")
