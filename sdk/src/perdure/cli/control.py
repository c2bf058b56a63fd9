"""Commands that change a run: resume, reset, cancel, pause, move, signal, update and more; and query."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from perdure.cli.corrections import Edits, Skips, Unchecked, corrections
from perdure.cli.declared import UNCHECKED, Declared, check_signal
from perdure.cli.on_run import Target, on_run
from perdure.cli.output import ExitCode, Format, Problem, chosen, print_json, stdout
from perdure.cli.session import parse_json
from perdure.cli.waiting import Timeout, result_of
from perdure.errors import Refused, RunCanceled, RunNotFound

Reason = Annotated[str, typer.Option("--reason", help="Kept in the history.", show_default=False)]
UntilEnd = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end, and tell how the run ended.")]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Though tasks done after the failure, such as a refund, stay done.")
]
Position = Annotated[str, typer.Option("--to", metavar="POSITION", help="Go back to just before this command.")]
Build = Annotated[str, typer.Option("--to", metavar="BUILD", help="The build that goes on with the run.")]
ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL")]
Value = Annotated[str, typer.Argument(metavar="JSON")]
AnyChannel = Annotated[bool, typer.Option(UNCHECKED, help="Whatever channels the workflow declares.")]
UpdateName = Annotated[str, typer.Argument(metavar="UPDATE")]
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
    reason: Reason = "",
) -> str:
    """Go on from just before the failure. What succeeded is not run again."""
    edits, skips = await corrections(at, edit, skip, unchecked=unchecked)
    try:
        await at.run.resume(reason=reason, edits=edits, skips=skips, anyway=anyway)
    except Refused as error:
        if "`anyway`" not in str(error):
            raise
        hint = f"perdure reset {at.run.id} --to POSITION   or   perdure resume {at.run.id} --anyway"
        raise Problem(str(error), hint=hint, code=ExitCode.conflict) from error
    return "resumed"


@on_run(_done)
async def reset(
    at: Target,
    *,
    to: Position,
    edit: Edits = [],  # noqa: B006 - Typer copies it
    skip: Skips = [],  # noqa: B006
    unchecked: Unchecked = False,
    reason: Reason = "",
) -> str:
    """Go back to a position and on from there; also for runs that have ended."""
    edits, skips = await corrections(at, edit, skip, unchecked=unchecked)
    await at.run.reset(to=to, reason=reason, edits=edits, skips=skips)
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
        await result_of(at.run, seconds, at.declared, overdue=overdue)
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
    """Go on with another build, once a worker of it has replayed the run."""
    await at.run.move(to, reason=reason)
    return f"moved to build {to}"


async def _check(at: Target, declared: Declared, channel: str, value: object) -> None:
    try:
        described = await at.run.describe()
    except RunNotFound:  # a signal may come before its run
        return
    check_signal(declared, described.name, channel, value)


@on_run(_done)
async def signal(at: Target, channel: ChannelName, value: Value = "null", *, unchecked: AnyChannel = False) -> str:
    """Send a value to a channel of the run."""
    payload = parse_json(value, "the value")
    if (declared := at.declared) is not None and not unchecked:
        await _check(at, declared, channel, payload)
    try:
        await at.run.signal(channel, payload)
    except RunNotFound as error:
        status = (await at.run.describe()).status
        code, hint = ExitCode.conflict, f"perdure show {at.run.id}"
        raise Problem(f"signal to {at.run.id!r}: the run has ended: {status}", hint=hint, code=code) from error
    return f"signaled on {channel}"


def _answered(_: str, value: object, output: Format | None) -> None:
    print_json(value, Format.jsonl if output is Format.jsonl else Format.json)


@on_run(_answered)
async def query(at: Target, name: QueryName, args: Values = None) -> object:
    """Ask the run's code; prints the answer as JSON."""
    answer: object = await at.run.query(name, *(parse_json(text, "an argument") for text in args or []))
    return answer


@on_run(_answered)
async def update(at: Target, name: UpdateName, args: Values = None) -> object:
    """Have the run's code do something; prints its answer as JSON."""
    answer: object = await at.run.update(name, *(parse_json(text, "an argument") for text in args or []))
    return answer
