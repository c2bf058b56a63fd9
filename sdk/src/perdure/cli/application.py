"""The `perdure` command: which commands there are."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated, Any

import typer

from perdure.cli import control, looks, routing, runs
from perdure.cli.admin import admin
from perdure.cli.cluster_worker import worker
from perdure.cli.dev import dev
from perdure.cli.output import MEANINGS, ExitCode, Problem

application = typer.Typer(
    name="perdure",
    help="Durable workflows in plain Python. Start with: perdure dev app.py",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
    epilog="Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + ".",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"perdure {importlib.metadata.version('perdure')}")
        raise typer.Exit


def _misplaced(parameter: typer.CallbackParam, value: str | None) -> None:
    """Raises Problem if it is given: options of commands are often typed before the command."""
    if value is not None:
        option = max(parameter.opts, key=len)
        hint = f"perdure COMMAND … {option} {value}"
        raise Problem(f"{option} goes after the command", hint=hint, code=ExitCode.usage)


def _later(*names: str) -> Any:
    return typer.Option(*names, hidden=True, callback=_misplaced)


@application.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    _database: Annotated[str | None, _later("--db")] = None,
    _namespace: Annotated[str | None, _later("--namespace", "-n")] = None,
    _output: Annotated[str | None, _later("--output", "-o")] = None,
    _run: Annotated[str | None, _later("--run")] = None,
) -> None:
    """What is asked of no command in particular; all of it has been answered when this is called."""


WITH_VALUES = {"ignore_unknown_options": True}
"""`-1` is a value."""

application.command()(dev)
application.command(context_settings=WITH_VALUES)(runs.run)
application.command(context_settings=WITH_VALUES)(runs.start)
application.command("list")(looks.list_runs)
application.command()(looks.show)
application.command()(runs.result)
application.command()(control.resume)
application.command()(control.reset)
application.command()(control.cancel)
application.command()(control.terminate)
application.command()(control.pause)
application.command()(control.unpause)
application.command()(control.move)
application.command(context_settings=WITH_VALUES)(control.signal)
application.command(context_settings=WITH_VALUES)(control.query)
application.command(context_settings=WITH_VALUES)(control.update)
application.command()(worker)
admin.command()(routing.route)
application.add_typer(admin)
