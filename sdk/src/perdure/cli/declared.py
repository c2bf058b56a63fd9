"""What the worker of a `perdure dev` declares, so that a wrong name or argument is told before anything is started."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from perdure import _app, convert
from perdure.cli.locations import api_url, declared_path
from perdure.cli.output import ExitCode, Problem
from perdure.errors import SerializationError, UnknownName
from perdure.flow import name_and_type
from perdure.registry import Registry
from perdure.workflow import Workflow
from perdure_schemas.events import Recorded, SignalReceived

if TYPE_CHECKING:
    from perdure.client import Client

_HERE = frozenset({"127.0.0.1", "localhost"})
"""Where a `perdure dev` has its API."""
UNCHECKED = "--unchecked"
"""The option of `start`, `signal`, `resume` and `reset` that skips these checks."""


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """Written by `perdure dev` whenever its worker is ready, or cannot be."""

    app: str
    """As on its command line."""
    folder: str
    """Where it was started."""
    workflows: list[str]
    tasks: list[str]
    left_out: dict[str, str] = {}
    """Workflows that the guard refuses, and why: no worker serves them."""
    broken: str = ""
    """Why nothing of it is served now; what it declares is then what it declared before."""

    def names(self) -> list[str]:
        """Of the workflows that there are."""
        return sorted([*self.workflows, *self.left_out])

    def trouble(self, workflow: str) -> str:
        """What is wrong with the code of a workflow, so that no worker runs it; empty: nothing that is known."""
        if self.broken or workflow not in self.left_out:
            return self.broken
        return f"{self.app} is served without {workflow}: {self.left_out[workflow]}"


def write(database: Path, told: Declared) -> None:
    """Replaces what was declared before the worker was reloaded."""
    target = declared_path(database)
    partial = target.with_suffix(".part")
    partial.write_bytes(msgspec.json.encode(told))
    partial.replace(target)


def remove(database: Path) -> None:
    """The `perdure dev` has ended."""
    declared_path(database).unlink(missing_ok=True)


async def told_at(client: Client, database: Path) -> Path | None:
    """The database of the `perdure dev` that the client speaks to; nothing: it speaks to an API elsewhere.

    What an API tells is not believed, but the file beside that database is, if it is ours: its app may be imported.
    """
    if not api_url():
        return database
    if urlsplit(api_url()).hostname not in _HERE:
        return None
    from perdure.client import announced

    told = await announced(client)
    if told is None or not told.database:
        return None
    there = Path(told.database)
    try:
        return there if declared_path(there).stat().st_uid == os.getuid() else None
    except OSError:
        return None


def read(database: Path | None) -> Declared | None:
    """What is declared beside it now; nothing while its worker has told nothing yet."""
    if database is None:
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
    if declared.trouble(workflow) and workflow in declared.names():
        return  # it is there, and goes on once it is mended
    if workflow not in declared.workflows:
        anyway = f"{UNCHECKED} starts it all the same"
        if declared.broken:
            raise Problem(declared.broken, hint=f"mend it   ({anyway})")
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
        definition.signature.check(convert.encode(list(values), what="the arguments"))
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
