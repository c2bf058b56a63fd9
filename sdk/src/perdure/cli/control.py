"""Commands that change a run: resume, reset, cancel, pause, move, signal, update and more; and query."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape

from perdure.cli.corrections import Edits, Skips, Unchecked, corrections
from perdure.cli.declared import UNCHECKED, Declared, check_signal
from perdure.cli.on_run import Target, on_run
from perdure.cli.output import ExitCode, Format, Problem, chosen, print_json, stderr, stdout
from perdure.cli.session import parse_json
from perdure.cli.waiting import Timeout, answer_of, result_of
from perdure.errors import Refused, RunCanceled, RunNotFound, UpdateTimeout


def _some(position: str) -> str:
    if not position:
        raise typer.BadParameter("a position is one such as 4 or 2.1; perdure show ID   has them", param_hint="--to")
    return position


Reason = Annotated[str, typer.Option("--reason", help="Kept in the history.", show_default=False)]
UntilEnd = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end, and tell how the run ended.")]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Though tasks done after the failure, such as a refund, stay done.")
]
Again = Annotated[bool, typer.Option("--anyway", help="Though completed tasks after it are done again or forgotten.")]
Position = Annotated[
    str,
    typer.Option("--to", metavar="POSITION", help="Go back to just before this command.", callback=_some),
]
Build = Annotated[str, typer.Option("--to", metavar="BUILD", help="The build that goes on with the run.")]
ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL")]
Value = Annotated[str, typer.Argument(metavar="JSON")]
AnyChannel = Annotated[bool, typer.Option(UNCHECKED, help="Whatever channels the workflow declares.")]
UpdateName = Annotated[str, typer.Argument(metavar="UPDATE")]
AnswerTimeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, help="Wait at most so many seconds; default: 60.", show_default=False),
]
UpdateId = Annotated[
    str,
    typer.Option("--update-id", help="Asks again for the update of this id, which is done once.", show_default=False),
]
QueryName = Annotated[str, typer.Argument(metavar="QUERY")]
Values = Annotated[list[str] | None, typer.Argument(metavar="[JSON]...")]


def _done(id: str, said: str, output: Format | None) -> None:
    if chosen(output) is Format.table:
        stdout().print(f"{escape(id)} {escape(said)}   [dim]perdure show {escape(id)}[/]")
    else:
        print_json({"id": id, "done": said})


@on_run(_done)
async def resume(
    at: Target,
    *,
    edit: Edits = [],  # noqa: B006 - Typer copies it
    skip: Skips = [],  # noqa: B006
    anyway: Anyway = False,
    unchecked: Unchecked = False,
    wait: UntilEnd = False,
    timeout: Timeout = None,
    reason: Reason = "",
) -> str:
    """Go on from just before the failure. What succeeded is not run again."""
    edits, skips = await corrections(at, edit, skip, unchecked=unchecked)
    id = at.run.id
    with _hinted(f"perdure reset {id} --to POSITION   or   perdure resume {id} --anyway"):
        await at.run.resume(reason=reason, edits=edits, skips=skips, anyway=anyway)
    if wait or timeout is not None:
        await result_of(at.run, timeout, at.look)
        return "completed"
    return "resumed"


@contextmanager
def _hinted(hint: str) -> Iterator[None]:
    """What to type if the run has completed what a rewind does not take back."""
    try:
        yield
    except Refused as error:
        if "`anyway`" not in str(error):
            raise
        raise Problem(str(error), hint=hint, code=ExitCode.conflict) from error


@on_run(_done)
async def reset(
    at: Target,
    *,
    to: Position,
    edit: Edits = [],  # noqa: B006 - Typer copies it
    skip: Skips = [],  # noqa: B006
    anyway: Again = False,
    unchecked: Unchecked = False,
    reason: Reason = "",
) -> str:
    """Go back to a position and on from there. Also for runs that have ended."""
    edits, skips = await corrections(at, edit, skip, unchecked=unchecked)
    with _hinted(f"perdure reset {at.run.id} --to {to} --anyway   or   perdure show {at.run.id}"):
        await at.run.reset(to=to, reason=reason, edits=edits, skips=skips, anyway=anyway)
    return f"reset to {to}"


@on_run(_done)
async def cancel(at: Target, *, wait: UntilEnd = False, timeout: Timeout = None, reason: Reason = "") -> str:
    """Ask the workflow to end; it may tidy up first."""
    await at.run.cancel(reason=reason)
    return await _how_it_ended(at, timeout) if wait or timeout is not None else "asked to cancel"


async def _how_it_ended(at: Target, seconds: float | None) -> str:
    """Raises Problem if the run fails, is terminated, or is open after `seconds`."""
    overdue = f"perdure terminate {at.run.id}   ends it at once;   perdure show {at.run.id}   tells more"
    try:
        await result_of(at.run, seconds, at.look, overdue=overdue)
    except Problem as ended:
        if not isinstance(ended.__cause__, RunCanceled):
            raise
        return "canceled"
    return "completed"


@on_run(_done)
async def terminate(at: Target, *, reason: Reason = "") -> str:
    """End the run at once; its code gets no word."""
    await at.run.terminate(reason=reason)
    return "terminated"


@on_run(_done)
async def pause(at: Target, *, reason: Reason = "") -> str:
    """Take no further decisions; tasks under way go on."""
    await at.run.pause(reason=reason)
    return "paused"


@on_run(_done)
async def unpause(at: Target, *, reason: Reason = "") -> str:
    """Undo a pause."""
    await at.run.unpause(reason=reason)
    return "unpaused"


@on_run(_done)
async def move(at: Target, *, to: Build, reason: Reason = "") -> str:
    """Move to another build, once a worker of it has replayed it."""
    await at.run.move(to, reason=reason)
    return f"moved to build {to}"


async def _check(at: Target, declared: Declared, channel: str, value: object) -> None:
    try:
        described = await at.run.describe()
    except RunNotFound:  # a signal may come before its run
        return
    if trouble := declared.trouble(described.name):
        stderr().print(f"[yellow]warning:[/] {escape(trouble)}; so the channel and the value are not checked")
        return
    check_signal(declared, described.name, channel, value)


@on_run(_done)
async def signal(at: Target, channel: ChannelName, value: Value = "null", *, unchecked: AnyChannel = False) -> str:
    """Send a value to a channel of the run. If there is none yet, that is said, and the run finds it when it starts."""
    payload = parse_json(value, "the value")
    if (declared := at.look()) is not None and not unchecked:
        await _check(at, declared, channel, payload)
    await at.run.signal(channel, payload)
    return f"signaled on {channel}"


def _answered(_: str, value: object, output: Format | None) -> None:
    print_json(value, Format.jsonl if output is Format.jsonl else Format.json)


@on_run(_answered)
async def query(at: Target, name: QueryName, args: Values = None) -> object:
    """Ask the run's code; prints the answer as JSON."""
    values = [parse_json(text, "an argument") for text in args or []]
    return await answer_of(at.run, at.run.query(name, *values), at.look)


@on_run(_answered)
async def update(
    at: Target, name: UpdateName, args: Values = None, *, timeout: AnswerTimeout = None, update_id: UpdateId = ""
) -> object:
    """Have the run's code do something; prints its answer as JSON."""
    values = [parse_json(text, "an argument") for text in args or []]
    run = at.run.options(update_id=update_id)
    if timeout is not None:
        run = at.run.options(update_timeout=timeout, update_id=update_id)
    try:
        return await answer_of(run, run.update(name, *values), at.look)
    except UpdateTimeout as error:
        again = shlex.join(["perdure", "update", run.id, name, *(args or []), "--update-id", error.update_id])
        raise Problem(str(error).partition(": ask again by")[0], hint=f"{again}   asks again") from error
