"""The command line. It talks to a running `perdure dev` through its socket; only `dev` and `run` make an engine.

Nothing heavy is imported before a command needs it: `perdure --help` answers at once.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the `perdure` command."""
    from perdure.cli.application import application  # the import is most of the start-up time
    from perdure.cli.output import Problem, exit_with
    from perdure.cli.session import problem_of
    from perdure.errors import PerdureError

    try:
        application()
    except (PerdureError, Problem) as error:
        exit_with(problem_of(error))
