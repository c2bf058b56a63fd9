"""Nets against what would come out differently in replay: clocks, randomness, I/O, threads.

Three nets, since none catches all. `source` reads the code of workflows when a worker is made: it sees everything that
is written there, before it runs. `traps` and `audit` see what runs, also below libraries: functions of the standard
library that are replaced, and the interpreter's own audit events. `monitor` sees calls of what cannot be replaced, such
as `datetime.now`, where Python is 3.12 or newer.

Whatever runs outside a workflow, or in `inline(fn)`, is none of their business.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any, Protocol, get_args

from perdure._replay.guard import audit, monitor, source, traps
from perdure._replay.guard.reports import Mode, log_once, use
from perdure.errors import DefinitionError

VARIABLE = "PERDURE_GUARD"
"""Of the environment: the mode of workers that are not told one."""


class Guarded(Protocol):
    """What the guard needs of a workflow."""

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> Any: ...


def mode_of(given: Mode | None) -> Mode:
    """The mode given, that of the environment, or "error".

    Raises:
        ValueError: it is none.
    """
    mode = given or os.environ.get(VARIABLE) or "error"
    for known in get_args(Mode):
        if mode == known:
            return known  # type: ignore[no-any-return]  # a member of Mode
    raise ValueError(f"the guard is one of {', '.join(get_args(Mode))}, not {mode!r}")


def check(mode: Mode, workflows: Iterable[Guarded]) -> None:
    """Read the code of workflows. What only may differ in replay, such as the order of a set, is never refused.

    Raises:
        DefinitionError: with "error", workflows call what would differ; the message names every line of all of them.
    """
    if mode == "off":
        return
    found = {workflow.name: source.check(workflow.target).findings for workflow in workflows}
    refused: list[str] = []
    for name, findings in found.items():
        certain = [f"  {finding}" for finding in findings if finding.certain]
        if certain:
            refused += [f"workflow {name} would come out differently in replay:", *certain]
    if refused and mode == "error":
        raise DefinitionError("\n".join(refused))
    for finding in itertools.chain.from_iterable(found.values()):
        log_once(str(finding))


def refusals(mode: Mode, workflows: Iterable[Guarded]) -> dict[str, str]:
    """The workflows that `check` refuses, by name, and why: for who serves the others meanwhile."""
    found: dict[str, str] = {}
    for workflow in workflows:
        try:
            check(mode, [workflow])
        except DefinitionError as error:
            found[workflow.name] = str(error)
    return found


def install(mode: Mode, workflows: Iterable[Guarded]) -> None:
    """From now on watch what workflows do in this process; the last mode that is given holds."""
    use(mode)
    if mode == "off":
        return
    traps.install()
    audit.install()
    for workflow in workflows:
        monitor.watch(source.check(workflow.target).codes)
