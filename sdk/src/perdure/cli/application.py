"""The `perdure` command: which commands there are."""

from __future__ import annotations

import typer

from perdure.cli import control, looks, runs
from perdure.cli.dev import dev

application = typer.Typer(
    name="perdure",
    help="Durable workflows in plain Python. Start with: perdure dev app.py",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)

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
