"""Commands that start runs and look at them: start, result, list, show, and run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from perdure import _app
from perdure.cli import declared as declarations
from perdure.cli import session as cli
from perdure.cli import timeline, waiting
from perdure.cli.output import plain_table, print_one, print_rows, print_value, status_markup
from perdure_runtime.ports import RunFilter
from perdure_schemas.common import ConflictPolicy
from perdure_schemas.events import Recorded
from perdure_schemas.messages import RunChanged

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[JSON]...", help="Arguments, each as JSON.", show_default=False)
]
LIST_MAX = 50
HISTORY_ROWS_MAX = 200
"""Shown in a table: the newest ones. `-o json` has all."""


def _values(args: Sequence[str] | None) -> list[Any]:
    return [cli.parse_json(text, f"argument {number}") for number, text in enumerate(args or [], 1)]


def run(
    app: Annotated[str, typer.Argument(metavar="APP", help="app.py, or package.module")],
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")],
    args: Arguments = None,
    *,
    output: cli.Output = None,
) -> None:
    """Run a workflow to its end in this process, and print its result. Nothing is kept."""
    from perdure.client import Client
    from perdure.registry import Registry

    values = _values(args)

    async def work() -> object:
        registry = Registry([module := _app.load(app)])
        definition = registry.workflows.get(workflow)
        if definition is None:
            raise declarations.unknown_workflow(workflow, list(registry.workflows), app)
        declarations.check_arguments(definition, values)
        async with Client.embedded(module) as client:
            declared = declarations.of_registry(app, registry)
            return await waiting.result_of(await client.start(workflow, *values), None, declared)

    print_value(cli.run(work), output)


def start(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")],
    args: Arguments = None,
    *,
    id: Annotated[str | None, typer.Option("--id", help="Workflow id; default: made up.", show_default=False)] = None,
    conflict: Annotated[
        str, typer.Option("--conflict", help="If the id is in use: fail, use-existing, terminate-existing.")
    ] = "fail",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="May be given several times.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the result.")] = False,
    unchecked: Annotated[
        bool, typer.Option(declarations.UNCHECKED, help="Though no worker has it yet, and whatever it takes.")
    ] = False,
    output: cli.Output = None,
    database: cli.Database = cli.DEFAULT_DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """Start a run; prints its id as soon as it is recorded."""
    values, policy = _values(args), _policy(conflict)

    async def work(client: Any) -> tuple[str, str, object]:
        declared = declarations.read(database)
        if declared is not None and not unchecked:
            declarations.check_start(declared, workflow, values)
        handle = await client.start(workflow, *values, id=id, conflict=policy, tags=tag or [])
        return handle.id, handle.run_id, await waiting.result_of(handle, None, declared) if wait else None

    started, run_id, result = cli.with_client(database, namespace, work)
    if wait:
        print_value(result, output)
    else:
        shown = {"id": started, "run_id": run_id}
        print_one(shown, output, lambda: f"started {escape(started)}   [dim]perdure show {escape(started)}[/]")


def _policy(text: str) -> ConflictPolicy:
    match text:
        case "fail" | "use-existing" | "terminate-existing":
            return text
        case _:
            raise typer.BadParameter("fail, use-existing or terminate-existing", param_hint="--conflict")


def result(
    id: Annotated[str, typer.Argument(metavar="ID", help="Workflow id.")],
    *,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end.")] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Wait at most so many seconds.")] = None,
    run_id: cli.RunId = "",
    output: cli.Output = None,
    database: cli.Database = cli.DEFAULT_DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """Print a run's result as JSON. Exit code 1 when it failed, or is still open."""
    seconds = timeout if timeout is not None else (None if wait else 0.5)  # an ended run answers within milliseconds

    async def work(client: Any) -> object:
        return await waiting.result_of(client.handle(id, run_id=run_id), seconds, declarations.read(database))

    print_value(cli.with_client(database, namespace, work), output)


def list_runs(
    *,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only this workflow.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="running, stuck, failed, completed, …")] = None,
    tag: Annotated[str | None, typer.Option("--tag")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1)] = LIST_MAX,
    output: cli.Output = None,
    database: cli.Database = cli.DEFAULT_DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """List runs, the newest first."""
    where = RunFilter(name=workflow, status=status, tag=tag)

    async def work(client: Any) -> Sequence[RunChanged]:
        page = await client.list(where, limit=limit)
        runs: Sequence[RunChanged] = page.runs
        return runs

    runs = cli.with_client(database, namespace, work)
    print_rows([_summary(run) for run in runs], output, lambda: _run_table(runs))


def _summary(run: RunChanged) -> dict[str, Any]:
    return {
        "id": run.workflow_id,
        "run_id": run.run_id,
        "workflow": run.name,
        "status": run.status,
        "generation": run.generation,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "waits_for": run.waits_for,
        "last_error": run.last_error,
        "tags": run.tags,
        "parent": run.parent_workflow_id,
    }


def _run_table(runs: Sequence[RunChanged]) -> RenderableType:
    if not runs:
        return Text("no runs", style="dim")
    table = plain_table("ID", "WORKFLOW", "STATUS", "STARTED", "TOOK", "WAITS FOR / ERROR")
    for run in runs:
        note = run.last_error if run.status in {"failed", "stuck", "timed-out"} else run.waits_for
        table.add_row(
            escape(run.workflow_id),
            escape(run.name),
            status_markup(run.status),
            timeline.clock(run.started_at),
            _took(run),
            escape(note.splitlines()[0] if note else ""),
        )
    return table


def _took(run: RunChanged) -> str:
    return "" if run.ended_at is None else f"{(run.ended_at - run.started_at) / 1000:.3f} s"


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="Workflow id.")],
    *,
    run_id: cli.RunId = "",
    output: cli.Output = None,
    database: cli.Database = cli.DEFAULT_DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """Show where a run stands: status, what it waits for, its error with traceback, and its history."""

    async def work(client: Any) -> tuple[RunChanged, Sequence[Recorded]]:
        handle = client.handle(id, run_id=run_id)
        return await handle.describe(), await handle.history()

    described, history = cli.with_client(database, namespace, work)
    found = {**_summary(described), "history": timeline.rows(history), "traceback": _traceback(history)}
    print_one(found, output, lambda: _details(described, history))


def _traceback(history: Sequence[Recorded]) -> str:
    """Of the newest event that has one, unless the run went on since."""
    for recorded in reversed(history):
        if failure := getattr(recorded.event, "failure", None):
            return timeline.stacks(failure)
    return ""


def _details(run: RunChanged, history: Sequence[Recorded]) -> RenderableType:
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_row("[bold]id[/]", escape(run.workflow_id))
    facts.add_row("[bold]run[/]", f"{run.run_id}   generation {run.generation}")
    facts.add_row("[bold]workflow[/]", escape(run.name))
    facts.add_row("[bold]status[/]", status_markup(run.status))
    facts.add_row("[bold]started[/]", timeline.clock(run.started_at))
    if run.ended_at is not None:
        facts.add_row("[bold]ended[/]", f"{timeline.clock(run.ended_at)}   after {_took(run)}")
    if run.waits_for:
        facts.add_row("[bold]waits for[/]", escape(run.waits_for))
    parts: list[RenderableType] = [facts]
    if run.status in {"failed", "stuck", "timed-out"} and (trace := _traceback(history)):
        parts += [Text("\nerror", style="bold red"), Text(trace)]
        parts.append(Text(f"\ntry: perdure resume {run.workflow_id}", style="dim"))
    return Group(*parts, Text(), _history_table(history, run.started_at))


def _history_table(history: Sequence[Recorded], started_at: int) -> Table:
    rows = timeline.rows(history)
    table = plain_table("#", "+MS", "POSITION", "EVENT", "")
    if len(rows) > HISTORY_ROWS_MAX:
        table.title = f"the last {HISTORY_ROWS_MAX} of {len(rows)} rows; all: -o jsonl"
    for row in rows[-HISTORY_ROWS_MAX:]:
        status = row["event"].rpartition(" ")[2]
        event = row["event"].replace(status, status_markup(status))
        offset = str(row["at"] - started_at)
        table.add_row(str(row["seq"]), offset, row["position"], event, escape(row["detail"]))
    return table
