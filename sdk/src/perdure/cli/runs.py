"""Commands that start runs and wait for them: run, start, result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from perdure._names import check_workflow_id
from perdure.cli import declared as declarations
from perdure.cli import session as cli
from perdure.cli import waiting
from perdure.cli.on_run import Target, on_run
from perdure.cli.output import print_one, print_value, stderr
from perdure.errors import DefinitionError
from perdure_schemas.common import ConflictPolicy, ReusePolicy

if TYPE_CHECKING:
    from perdure.handle import Handle
    from perdure.registry import Registry

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[JSON]...", help="Arguments, each as JSON.", show_default=False)
]
ENDED_SECONDS_MAX = 0.5
"""For the answer of a run that has ended: it comes within milliseconds."""


def _values(args: Sequence[str] | None) -> list[Any]:
    return [cli.parse_json(text, f"argument {number}") for number, text in enumerate(args or [], 1)]


def run(
    app: Annotated[str, typer.Argument(metavar="APP", help="app.py, or package.module")],
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")],
    args: Arguments = None,
    *,
    output: cli.Output = None,
) -> None:
    """Run a workflow to its end here, and print its result. Nothing is kept."""
    from perdure.client import Client
    from perdure.registry import Registry

    values = _values(args)

    async def work() -> object:
        registry = Registry([cli.load(app)])
        definition = registry.workflows.get(workflow)
        if definition is None:
            raise declarations.unknown_workflow(workflow, list(registry.workflows), app)
        declarations.check_arguments(definition, values)
        _leave_out(registry, workflow)
        async with Client.embedded(*registry.tasks.values(), *registry.workflows.values()) as client:
            declared = declarations.of_registry(app, registry)
            started = await client.start(workflow, *values)
            return await waiting.result_of(started, None, lambda: declared, mended=False)

    print_value(cli.run(work), output)


def _leave_out(registry: Registry, wanted: str) -> None:
    """Workflows that the guard refuses, as `perdure dev` does: the wanted one can do without them, or says so.

    Raises:
        DefinitionError: it is the wanted one.
    """
    from perdure._replay import guard

    for name, reason in guard.refusals(guard.mode_of(None), registry.workflows.values()).items():
        if name == wanted:
            raise DefinitionError(reason)
        del registry.workflows[name]
        stderr().print(f"[yellow]warning:[/] {escape(reason)}\n{escape(name)} is left out")


def start(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")],
    args: Arguments = None,
    *,
    id: Annotated[str | None, typer.Option("--id", help="Workflow id; default: made up.", show_default=False)] = None,
    conflict: Annotated[
        str, typer.Option("--conflict", help="If the id is in use: fail, use-existing, terminate-existing.")
    ] = "fail",
    reuse: Annotated[
        str, typer.Option("--reuse", help="If its last run has ended, begin another: always, after-failure, never.")
    ] = "always",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="May be given several times.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the result.")] = False,
    timeout: waiting.Timeout = None,
    unchecked: Annotated[
        bool, typer.Option(declarations.UNCHECKED, help="Though no worker has it yet, and whatever it takes.")
    ] = False,
    output: cli.Output = None,
    database: cli.Database = cli.DEFAULT_DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """Start a run; prints its id once it is recorded. With --wait to stderr, since stdout has the result."""
    wait = wait or timeout is not None
    values, policy, after = _values(args), _policy(conflict), _reuse(reuse)
    if id is not None:
        _check_id(id)

    async def work(client: Any) -> tuple[dict[str, Any], str, object]:
        look = partial(declarations.read, await declarations.told_at(client, database))
        declared = look()
        if declared is not None and not unchecked:
            declarations.check_start(declared, workflow, values)
        handle = await client.start(workflow, *values, id=id, conflict=policy, reuse=after, tags=tag or [])
        said = await _said(handle)
        if wait:
            stderr().print(escape(said), style="dim")
        shown = {"id": handle.id, "run_id": handle.run_id, "started": not handle.existing}
        return shown, said, await waiting.result_of(handle, timeout, look) if wait else None

    shown, said, result = cli.with_client(database, namespace, work)
    if wait:
        print_value(result, output)
    else:
        print_one(shown, output, lambda: f"{escape(said)}   [dim]perdure show {escape(shown['id'])}[/]")


async def _said(run: Handle[Any]) -> str:
    """Whether the run was started, or was there and in which state."""
    if not run.existing:
        return f"started {run.id}"
    described = await waiting.view_of(run)
    return f"{run.id} is there already" + (f": {described.status}" if described is not None else "")


def _check_id(id: str) -> None:
    try:
        check_workflow_id(id)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--id") from None


def _policy(text: str) -> ConflictPolicy:
    match text:
        case "fail" | "use-existing" | "terminate-existing":
            return text
        case _:
            raise typer.BadParameter("fail, use-existing or terminate-existing", param_hint="--conflict")


def _reuse(text: str) -> ReusePolicy:
    match text:
        case "always" | "after-failure" | "never":
            return text
        case _:
            raise typer.BadParameter("always, after-failure or never", param_hint="--reuse")


@on_run(lambda _, value, output: print_value(value, output))
async def result(
    at: Target,
    *,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end.")] = False,
    timeout: waiting.Timeout = None,
) -> object:
    """Print a run's result as JSON. Exit code 1 when it failed, or is still open."""
    seconds = timeout if timeout is not None else (None if wait else ENDED_SECONDS_MAX)
    return await waiting.result_of(at.run, seconds, at.look)
