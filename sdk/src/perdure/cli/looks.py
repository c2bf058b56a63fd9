"""Commands that look at runs: list and show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from perdure.cli import attempts, remedies, timeline, waiting
from perdure.cli import declared as declarations
from perdure.cli import rows as history_rows
from perdure.cli import session as cli
from perdure.cli.declared import Declared
from perdure.cli.listings import listing
from perdure.cli.on_run import Target, on_run
from perdure.cli.output import (
    ExitCode,
    Format,
    Problem,
    plain_table,
    print_one,
    print_rows,
    status_markup,
    stderr,
    stdout,
)
from perdure.cli.rows import Row
from perdure_runtime.ports import RunFilter
from perdure_schemas.events import Recorded, RunStatus
from perdure_schemas.messages import RunChanged, TaskChanged

if TYPE_CHECKING:
    from perdure.client import Client

LIST_MAX = 50
"""Enough for a glance."""
PAGE_MAX = 1_000
"""The API gives no more at a time."""
HISTORY_ROWS_MAX = 200
"""Shown in a table: the newest ones. `-o json` has all."""
RESUMABLE = {"failed", "stuck", "timed-out"}


class Seen(NamedTuple):
    run: RunChanged
    history: Sequence[Recorded]
    tasks: Sequence[TaskChanged]
    declared: Declared | None

    @property
    def dropped(self) -> dict[int, str]:
        return declarations.dropped_signals(self.declared, self.run.name, self.history)


def list_runs(
    *,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only this workflow.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="running, stuck, failed, completed, …")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help=f"At most so many; default: {LIST_MAX}.")] = LIST_MAX,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Go on where a list ended, which told it.", show_default=False)
    ] = None,
    output: cli.Output = None,
    database: cli.Database = cli.DEFAULT_DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """List runs, the newest first. If there are more, stderr tells the cursor to go on with."""
    if status is not None and status not in get_args(RunStatus):
        raise typer.BadParameter(f"one of {', '.join(get_args(RunStatus))}, not {status!r}", param_hint="--status")
    where = RunFilter(name=workflow, status=status, tag=tag)

    async def work(client: Client) -> tuple[Sequence[RunChanged], str | None, Declared | None]:
        runs, following = await _listed(client, where, limit, cursor)
        known = None if runs else declarations.read(await declarations.told_at(client, database))
        return runs, following, known

    runs, following, known = cli.with_client(database, namespace, work)
    if workflow is not None and known is not None and not known.broken and workflow not in known.names():
        raise declarations.unknown_workflow(workflow, known.workflows, known.app)
    print_rows([_summary(run) for run in runs], output, lambda: _run_table(runs, where))
    if following is not None:
        more = f"the newest {len(runs)}" if cursor is None else f"{len(runs)} more"
        stderr().print(f"{more}; there are others: --limit, or --cursor {escape(following)}", style="dim")


async def _listed(
    client: Client, where: RunFilter, limit: int, cursor: str | None
) -> tuple[Sequence[RunChanged], str | None]:
    """At most so many runs, and where a list of the others begins.

    Raises:
        Problem: the cursor is that of no list.
    """
    runs: list[RunChanged] = []
    while True:
        try:
            page = await client.list(where, limit=min(limit - len(runs), PAGE_MAX), cursor=cursor)
        except ValueError as error:
            raise Problem(str(error), hint="perdure list   tells it on stderr", code=ExitCode.usage) from error
        runs, cursor = [*runs, *page.runs], page.cursor
        if cursor is None or len(runs) >= limit:
            return runs, cursor


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


def _run_table(runs: Sequence[RunChanged], where: RunFilter) -> RenderableType:
    if not runs and where != RunFilter():
        asked = {"workflow": where.name, "status": where.status, "tag": where.tag}
        told = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        return Text(f"no runs with {told}   try: perdure list   (all)", style="dim")
    if not runs:
        return Text("no runs   try: perdure start WORKFLOW [JSON]…", style="dim")
    now_ms = time.time_ns() // 1_000_000
    noted = [(_cells(run, now_ms), _note(run)) for run in runs]
    return listing(noted, ("ID", "WORKFLOW", "STATUS", "STARTED", "TOOK"), "WAITS FOR / ERROR", stdout().width)


def _note(run: RunChanged) -> str:
    return (run.last_error if run.status in RESUMABLE else run.waits_for).partition("\n")[0]


def _cells(run: RunChanged, now_ms: int) -> tuple[str, ...]:
    facts = (escape(run.workflow_id), escape(run.name), status_markup(run.status))
    return (*facts, timeline.clock(run.started_at, now_ms), _took(run, now_ms))


def _took(run: RunChanged, now_ms: int) -> str:
    """Of an open run dimmed: so far."""
    if run.ended_at is not None:
        return timeline.took(run.ended_at - run.started_at)
    return f"[dim]{timeline.took((now_ms - run.started_at) // 1000 * 1000).replace('.000', '')}[/]"


def _shown(_: str, seen: Seen, output: Format | None) -> None:
    under_way = attempts.under_way(seen.tasks, seen.history)
    found = {
        **_summary(seen.run),
        "traceback": _traceback(seen.run, seen.history),
        "try": _hint(seen),
        "tasks": under_way,
        "history": history_rows.rows(seen.history, seen.dropped, shown=timeline.whole),
    }
    print_one(found, output, lambda: _details(seen, under_way))


@on_run(_shown)
async def show(at: Target) -> Seen:
    """Show where a run stands. Its status, what it waits for, its error with traceback, and its history."""
    run, history = await at.run.describe(), await at.run.history()
    return Seen(run, history, await at.run.tasks(), at.look())


def _traceback(run: RunChanged, history: Sequence[Recorded]) -> str:
    """Of what the run failed or is stuck with now."""
    if run.status not in RESUMABLE:
        return ""
    failures = (getattr(recorded.event, "failure", None) for recorded in reversed(history))
    return timeline.stacks(next((failure for failure in failures if failure is not None), None))


def _details(seen: Seen, under_way: Sequence[Row]) -> RenderableType:
    run, history = seen.run, seen.history
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, text in _facts(run):
        facts.add_row(f"[bold]{name}[/]", text)
    parts: list[RenderableType] = [facts]
    if trace := _traceback(run, history):
        parts += [Text("\nerror", style="bold red"), Text(trace)]
    if hint := _hint(seen):
        parts.append(Text(f"\ntry: {hint}", style="dim"))
    if under_way:
        parts += [Text("\ntasks under way", style="bold"), attempts.table(under_way)]
    rows = history_rows.rows(history, seen.dropped)
    parts += [Text(), _history_table(rows, run.started_at)]
    if silent := history_rows.silent(history):
        parts.append(Text(silent, style="dim"))
    return Group(*parts)


def _facts(run: RunChanged) -> list[tuple[str, str]]:
    facts = [
        ("id", escape(run.workflow_id)),
        ("run", f"{run.run_id}" + (f"   generation {run.generation}" if run.generation else "")),
        ("workflow", escape(run.name)),
        ("status", status_markup(run.status)),
        ("started", timeline.clock(run.started_at)),
    ]
    if run.ended_at is not None:
        facts.append(
            ("ended", f"{timeline.clock(run.ended_at)}   after {timeline.took(run.ended_at - run.started_at)}")
        )
    optional = [("waits for", run.waits_for), ("tags", ", ".join(run.tags)), ("parent", run.parent_workflow_id)]
    return facts + [(name, escape(text)) for name, text in optional if text]


def _hint(seen: Seen) -> str:
    run = seen.run
    trouble = seen.declared.trouble(run.name) if seen.declared is not None and run.ended_at is None else ""
    mend = [f"mend it: {trouble}"] if trouble else []
    match run.status:
        case "stuck":
            return "; ".join([*mend, remedies.for_stuck(run, seen.history)])
        case "failed":
            return remedies.for_failed(run.workflow_id, seen.history)
        case "paused":
            return "; ".join([*mend, f"perdure unpause {run.workflow_id}"])
        case _ if mend:
            return mend[0]
        case _:
            hindered = waiting.obstacle(run, seen.declared)
            return f"declare it: the run {hindered}" if hindered and run.ended_at is None else ""


def _history_table(rows: Sequence[Row], started_at: int) -> Table:
    table = plain_table("#", "+MS", "POSITION", "EVENT", "DETAIL")
    if len(rows) > HISTORY_ROWS_MAX:
        table.title = f"the last {HISTORY_ROWS_MAX} of {len(rows)} rows; all: -o jsonl"
    for row in rows[-HISTORY_ROWS_MAX:]:
        void = row.get("superseded", False)
        detail = f"superseded: {row['detail']}" if void else row["detail"]
        status = row["event"].rpartition(" ")[2]
        event = row["event"] if void else row["event"].replace(status, status_markup(status))
        offset = str(row["at"] - started_at)
        style = "dim strike" if void else ""
        table.add_row(str(row["seq"]), offset, row["position"], event, escape(detail), style=style)
    return table
