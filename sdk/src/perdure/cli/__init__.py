"""The command line. It talks to a running `perdure dev` through its socket; only `dev` and `run` make an engine.

Nothing heavy is imported before a command needs it: `perdure --help` answers at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_INTERRUPTED = 130
"""What shells say of a program that Ctrl-C ended."""


def main() -> None:
    """Entry point of the `perdure` command. Ctrl-C ends it without a word, whatever it is at."""
    signal.signal(signal.SIGINT, _end)
    from perdure.cli.application import application  # the import is most of the start-up time
    from perdure.cli.output import Problem, exit_with
    from perdure.cli.session import problem_of
    from perdure.errors import PerdureError

    try:
        application()
    except (PerdureError, Problem) as error:
        exit_with(problem_of(error))


def _end(*_: object) -> None:
    """At once: an exception would come up in the midst of an import, or in what tells of another one."""
    os._exit(EXIT_INTERRUPTED)


@contextmanager
def interruptible() -> Iterator[None]:
    """Meanwhile Ctrl-C is KeyboardInterrupt: there is something to tidy up."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _end:  # in a program of somebody else
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
