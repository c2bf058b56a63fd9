"""`perdure admin route`: the build that new runs of a workflow get, and their defaults. The operator does the same."""

from __future__ import annotations

import os
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from perdure._duration import DEFAULT_MAX_MS
from perdure._extras import needed
from perdure._names import is_name
from perdure.cli import session as cli
from perdure.cli.locations import TOKEN, URL, api_url
from perdure.cli.output import ExitCode, Problem, plain_table, print_one

PERCENT_MAX = 100
SECONDS_MAX = DEFAULT_MAX_MS // 1000


def route(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Its name.")],
    *,
    current: Annotated[
        str | None, typer.Option(metavar="BUILD", help="All new runs get it, unless another is ramping; '': none.")
    ] = None,
    ramping: Annotated[
        str | None, typer.Option(metavar="BUILD", help="A share of new runs gets it, instead of the current one.")
    ] = None,
    percent: Annotated[
        int | None, typer.Option(min=0, max=PERCENT_MAX, help="That share, by workflow id; with --ramping.")
    ] = None,
    run_timeout: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=0, max=SECONDS_MAX, help="Of new runs that are given none; 0: no limit."),
    ] = None,
    retention: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=0, max=SECONDS_MAX, help="Of new runs that are given none; 0: 7 days."),
    ] = None,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
    output: cli.Output = None,
) -> None:
    """Set or show the build and defaults of new runs of WORKFLOW.

    The defaults are their time-out and retention.

    Runs that have begun stay on their build, and keep what they began with.
    --current alone ends what is ramping; --ramping leaves the current build as it is.
    """
    if not is_name(workflow):
        raise Problem(f"{workflow!r} cannot name a workflow", code=ExitCode.usage)
    if (ramping is None) != (percent is None):
        raise Problem("--ramping and --percent go together", hint="--ramping BUILD --percent 10", code=ExitCode.usage)
    builds = _builds(current, ramping, percent)
    defaults = {
        name: seconds * 1000 or None
        for name, seconds in (("run_timeout_ms", run_timeout), ("retention_ms", retention))
        if seconds is not None
    }
    shown = cli.run(lambda: _route(namespace, workflow, builds, defaults))
    print_one({"workflow": workflow, **shown}, output, lambda: _table(workflow, shown))


def _builds(current: str | None, ramping: str | None, percent: int | None) -> dict[str, Any]:
    """What changes in the record."""
    if current is None and ramping is None:
        return {}
    changes = {"ramping": ramping, "ramping_percent": percent or 0}
    return changes if current is None else {"current": current or None, **changes}


async def _route(
    namespace: str, workflow: str, builds: dict[str, Any], defaults: dict[str, int | None]
) -> dict[str, Any]:
    """The record, with what was to change in it."""
    with needed("api", "perdure admin route"):
        from perdure._http.caller import Caller

    if not api_url():
        hint = f"{URL}=http://127.0.0.1:8420 perdure admin route {workflow}"
        raise Problem(f"{URL} says where the API is, which keeps this", hint=hint, code=ExitCode.usage)
    caller, path = Caller(api_url(), namespace, os.environ.get(TOKEN, "")), f"/routing/{quote(workflow, safe='')}"
    caller.open("admin")
    try:
        _, data = await caller.request("GET", path)
        known = _read(data)
        if not builds and not defaults:
            return known
        put = {**known, **builds, "defaults": {**known["defaults"], **defaults}}
        _, data = await caller.request("PUT", path, body=msgspec.json.encode(put))
        return _read(data)
    finally:
        await caller.close()


def _read(data: bytes) -> dict[str, Any]:
    return msgspec.json.decode(data, type=dict[str, Any])


def _table(workflow: str, shown: dict[str, Any]) -> Any:
    table = plain_table("WORKFLOW", "CURRENT", "RAMPING", "PERCENT", "TIME-OUT", "RETENTION")
    lengths = [_length(shown["defaults"][name]) for name in ("run_timeout_ms", "retention_ms")]
    table.add_row(workflow, shown["current"] or "", shown["ramping"] or "", str(shown["ramping_percent"]), *lengths)
    return table


def _length(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + " s"
