"""The `perdure` command: which commands there are."""

from __future__ import annotations

import typer

from perdure.cli import control, runs
from perdure.cli.dev import dev

application = typer.Typer(
    name="perdure",
    help="Durable workflows in plain Python. Start with: perdure dev app.py",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)

application.command()(dev)
application.command()(runs.run)
application.command()(runs.start)
application.command("list")(runs.list_runs)
application.command()(runs.show)
application.command()(runs.result)
application.command()(control.resume)
application.command()(control.reset)
application.command()(control.cancel)
application.command()(control.terminate)
application.command()(control.pause)
application.command()(control.unpause)
application.command()(control.signal)
application.command()(control.query)
