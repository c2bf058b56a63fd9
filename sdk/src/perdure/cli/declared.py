"""What the worker of a `perdure dev` declares, so that a wrong name or argument is told before anything is started."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from perdure import _app, convert
from perdure._worker.supervision import Ready
from perdure.cli.locations import api_url, declared_path
from perdure.cli.output import ExitCode, Problem
from perdure.errors import SerializationError, UnknownName
from perdure.flow import name_and_type
from perdure.registry import Registry
from perdure.workflow import Workflow
from perdure_schemas.events import Recorded, SignalReceived

UNCHECKED = "--unchecked"
"""The option of `start`, `signal`, `resume` and `reset` that skips these checks."""


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """Written by `perdure dev` when its worker is ready."""

    app: str
    """As on its command line."""
    folder: str
    """Where it was started."""
    workflows: list[str]
    tasks: list[str]


def write(database: Path, app: str, ready: Ready) -> None:
    """Replaces what was declared before the worker was reloaded."""
    told = Declared(app=app, folder=str(Path.cwd()), workflows=ready.workflows, tasks=ready.tasks)
    target = declared_path(database)
    partial = target.with_suffix(".part")
    partial.write_bytes(msgspec.json.encode(told))
    partial.replace(target)


def remove(database: Path) -> None:
    """The `perdure dev` has ended."""
    declared_path(database).unlink(missing_ok=True)


def read(database: Path) -> Declared | None:
    """Nothing while there was no ready worker yet, nor of workers behind an API."""
    if api_url():
        return None
    try:
        return msgspec.json.decode(declared_path(database).read_bytes(), type=Declared)
    except (OSError, msgspec.DecodeError):
        return None


def of_registry(app: str, registry: Registry) -> Declared:
    """Of an app that runs in this process."""
    return Declared(app=app, folder=str(Path.cwd()), workflows=sorted(registry.workflows), tasks=sorted(registry.tasks))


def check_start(declared: Declared, workflow: str, values: Sequence[Any]) -> None:
    """Raises Problem if no worker has the workflow, or, where the app can be imported here, it takes other arguments.

    A worker of another build may have it: the option UNCHECKED is for that.
    """
    if workflow not in declared.workflows:
        anyway = f"{UNCHECKED} starts it all the same"
        raise unknown_workflow(workflow, declared.workflows, declared.app, or_else=anyway)
    definition = _definition(declared, workflow)
    if definition is not None:
        check_arguments(definition, values)


def unknown_workflow(workflow: str, known: Sequence[str], app: str, *, or_else: str = "") -> Problem:
    """Tells the names there are, the likeliest first."""
    near = difflib.get_close_matches(workflow, known, n=3)
    names = [*near, *(name for name in sorted(known) if name not in near)]
    hint = f"one of: {', '.join(names)}" if names else f"declare one in {app} with @workflow"
    return Problem(
        f"{app} has no workflow {workflow!r}",
        hint=hint + (f"   ({or_else})" if or_else else ""),
        code=ExitCode.not_found,
    )


def check_arguments(definition: Workflow[..., Any], values: Sequence[Any]) -> None:
    """Raises Problem if the workflow does not take these arguments."""
    try:
        definition.signature.check(convert.encode(list(values), Any, "the arguments"))
    except SerializationError as error:
        raise Problem(str(error), hint=f"it is {definition.signature!r}", code=ExitCode.usage) from error


def check_signal(declared: Declared, workflow: str, channel: str, value: Any) -> None:
    """Raises Problem for a channel that the workflow's class does not declare, and for values of another type.

    Its code would drop the value, or never look for it.
    """
    definition = _definition(declared, workflow)
    if definition is None:
        return
    try:
        definition.encode_signal(channel, value)
    except UnknownName as error:
        raise Problem(str(error), hint=f"{UNCHECKED} sends it all the same", code=ExitCode.not_found) from error
    except SerializationError as error:
        hint = (
            f"perdure signal ID {channel} JSON   ({workflow} has channel {name_and_type(definition.channels[channel])})"
        )
        raise Problem(str(error), hint=hint, code=ExitCode.usage) from error


def dropped_signals(declared: Declared | None, workflow: str, history: Sequence[Recorded]) -> dict[int, str]:
    """Seq of each signal that the workflow's code drops, since it is not of its channel's type; and why.

    Of channels that the workflow's class declares: of others the type is known in the running code alone.
    """
    signals = [(r.seq, r.event) for r in history if isinstance(r.event, SignalReceived)]
    definition = _definition(declared, workflow) if declared is not None and signals else None
    dropped: dict[int, str] = {}
    if definition is None:
        return dropped
    for seq, signal in signals:
        channel = definition.channels.get(signal.channel)
        if channel is None:
            continue
        try:
            channel.decode(signal.payload)
        except SerializationError as error:
            dropped[seq] = str(error)
    return dropped


def registry_of(declared: Declared) -> Registry | None:
    """From the app itself; nothing if it cannot be imported here: the worker may have another environment."""
    with _as_if_started_in(declared.folder):
        try:
            return Registry([_app.load(declared.app)])
        except (Exception, SystemExit):
            return None


def _definition(declared: Declared, workflow: str) -> Workflow[..., Any] | None:
    registry = registry_of(declared)
    return None if registry is None else registry.workflows.get(workflow)


@contextlib.contextmanager
def _as_if_started_in(folder: str) -> Iterator[None]:
    """What the app prints when it is imported goes to stderr: stdout is for the command's result."""
    before = Path.cwd()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.chdir(before)
