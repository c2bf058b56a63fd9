"""Commands that change a run: resume, reset, cancel, terminate, pause, unpause, signal; and query, update."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from perdure.cli.output import Format, chosen, print_json, stdout
from perdure.cli.session import (
    DEFAULT_DATABASE,
    DEFAULT_NAMESPACE,
    Database,
    Namespace,
    Output,
    Reason,
    RunId,
    parse_assignments,
    parse_json,
    with_client,
)
from perdure.handle import Handle

WorkflowId = Annotated[str, typer.Argument(metavar="ID", help="Workflow id.")]
Edits = Annotated[
    list[str], typer.Option("--edit", metavar="POSITION=JSON", help="New arguments (a JSON array) of a task.")
]
Skips = Annotated[
    list[str], typer.Option("--skip", metavar="POSITION=JSON", help="A result instead of running the task.")
]
Act = Callable[[Handle[Any]], Awaitable[object]]


def _act(target: tuple[Path, str, str, str], act: Act, output: Format | None, said: str) -> None:
    """Does it to the run (database, namespace, workflow id, run id) and tells that it is done."""
    database, namespace, id, run_id = target

    async def work(client: Any) -> None:
        await act(client.handle(id, run_id=run_id))

    with_client(database, namespace, work)
    if chosen(output) is Format.table:
        stdout().print(f"{escape(id)} {said}")
    else:
        print_json({"id": id, "done": said})


def resume(
    id: WorkflowId,
    *,
    edit: Edits = [],  # noqa: B006 - Typer copies it
    skip: Skips = [],  # noqa: B006 - Typer copies it
    reason: Reason = "",
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Go on from just before the failure. What succeeded is not run again."""
    edits, skips = parse_assignments(edit, "--edit"), parse_assignments(skip, "--skip")
    _act(
        (database, namespace, id, run_id),
        lambda run: run.resume(reason=reason, edits=edits, skips=skips),
        output,
        "resumed",
    )


def reset(
    id: WorkflowId,
    to: Annotated[str, typer.Option("--to", metavar="POSITION", help="Go back to just before this command.")],
    *,
    reason: Reason = "",
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Go back to a position and on from there; also for runs that have ended."""
    _act((database, namespace, id, run_id), lambda run: run.reset(to=to, reason=reason), output, f"reset to {to}")


def cancel(
    id: WorkflowId,
    *,
    reason: Reason = "",
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Ask the workflow to end; it may tidy up first."""
    _act((database, namespace, id, run_id), lambda run: run.cancel(reason=reason), output, "asked to cancel")


def terminate(
    id: WorkflowId,
    *,
    reason: Reason = "",
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """End the run at once; its code gets no word."""
    _act((database, namespace, id, run_id), lambda run: run.terminate(reason=reason), output, "terminated")


def pause(
    id: WorkflowId,
    *,
    reason: Reason = "",
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Take no further decisions; tasks under way go on."""
    _act((database, namespace, id, run_id), lambda run: run.pause(reason=reason), output, "paused")


def unpause(
    id: WorkflowId,
    *,
    reason: Reason = "",
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Undo a pause."""
    _act((database, namespace, id, run_id), lambda run: run.unpause(reason=reason), output, "unpaused")


def signal(
    id: WorkflowId,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL")],
    value: Annotated[str, typer.Argument(metavar="JSON")] = "null",
    *,
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Send a value to a channel of the run."""
    payload = parse_json(value, "the value")
    _act((database, namespace, id, run_id), lambda run: run.signal(channel, payload), output, f"signaled on {channel}")


def query(
    id: WorkflowId,
    name: Annotated[str, typer.Argument(metavar="QUERY")],
    args: Annotated[list[str] | None, typer.Argument(metavar="[JSON]...")] = None,
    *,
    run_id: RunId = "",
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Ask the run's code; prints the answer as JSON."""
    values = [parse_json(text, "an argument") for text in args or []]

    async def work(client: Any) -> object:
        answer: object = await client.handle(id, run_id=run_id).query(name, *values)
        return answer

    print_json(with_client(database, namespace, work))
