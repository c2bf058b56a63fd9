"""Tasks that are under way though an attempt of them has failed, or that take long: what the task engine knows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from perdure.cli.output import plain_table
from perdure.cli.rows import Row
from perdure.cli.timeline import clock, failure_text
from perdure_core.history import effective
from perdure_schemas.common import Command
from perdure_schemas.events import CommandSettled, Recorded, TurnCommitted
from perdure_schemas.messages import TaskChanged

_OPEN = frozenset({"queued", "running", "waiting-retry"})


def under_way(tasks: Sequence[TaskChanged], history: Sequence[Recorded]) -> list[Row]:
    """One row per open task that the task engine supervises; JSON-able. Younger than a second, it does not yet."""
    waited = _open_commands(history)
    return [_row(task, waited[task.task_id]) for task in tasks if task.status in _OPEN and task.task_id in waited]


def _open_commands(history: Sequence[Recorded]) -> dict[str, Command]:
    """The history knows first that a task has ended."""
    in_force = [recorded.event for recorded in effective(history)]
    settled = {event.command_id for event in in_force if isinstance(event, CommandSettled)}
    turns = (event for event in in_force if isinstance(event, TurnCommitted))
    return {each.id: each for turn in turns for each in turn.commands if each.kind == "task" and each.id not in settled}


def _row(task: TaskChanged, command: Command) -> Row:
    failed = task.attempt - 1 if task.failure is not None else 0
    return {
        "position": command.position,
        "task": task.name,
        "id": task.task_id,
        "status": task.status,
        "attempt": task.attempt,
        "at": task.at,
        "failed_attempts": failed,
        "last_failure": failure_text(task.failure),
        "next_attempt_at": task.next_attempt_at if task.status == "waiting-retry" else None,
        "worker": task.worker,
    }


def table(rows: Sequence[Row]) -> Table:
    shown = plain_table("POSITION", "TASK", "STATE", "LAST FAILURE")
    for row in rows:
        shown.add_row(row["position"], escape(row["task"]), _state(row), escape(_failure(row)))
    return shown


def _state(row: Row) -> str:
    attempt = row["attempt"]
    match row["status"]:
        case "waiting-retry":
            return f"[yellow]attempt {attempt} at {clock(row['next_attempt_at'])}[/]"
        case "running":
            worker = f" on {escape(row['worker'])}" if row["worker"] else ""
            return f"[cyan]attempt {attempt} running[/] since {clock(row['at'])}{worker}"
        case _ if row["worker"]:
            return f"attempt {attempt} waits for another worker: {escape(row['worker'])} is gone"
        case _:
            return f"attempt {attempt} waits for a worker since {clock(row['at'])}"


def _failure(row: Row) -> str:
    failed = row["failed_attempts"]
    return f"attempt {failed}: {row['last_failure']}" if failed else ""
