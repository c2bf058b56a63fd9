"""What the commands print: data on stdout, everything else on stderr; tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Any, NoReturn

import msgspec
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

WIDTH_PIPED = 160
"""Columns of a table that is not shown on a terminal: a log viewer scrolls, a wrapped table is unreadable."""

STYLES = {
    "running": "cyan",
    "completed": "green",
    "continued-as-new": "green",
    "fired": "green",
    "skipped": "yellow",
    "paused": "yellow",
    "canceled": "yellow",
    "stuck": "bold red",
    "failed": "bold red",
    "terminated": "red",
    "timed-out": "bold red",
}
"""One colour per state, everywhere."""


class Format(StrEnum):
    table = "table"
    json = "json"
    jsonl = "jsonl"


class ExitCode(IntEnum):
    """Part of the contract with scripts."""

    failed = 1
    usage = 2
    not_found = 3
    conflict = 4
    unavailable = 5


MEANINGS = {
    ExitCode.failed: "the run failed, or is open when its result is asked for, or any other error",
    ExitCode.usage: "wrong use: an option, an argument, or a value of another type",
    ExitCode.not_found: "there is no such run, workflow, namespace, channel, query or update",
    ExitCode.conflict: "the run's state does not allow it, or the id or the file is in use",
    ExitCode.unavailable: "no engine answers; `perdure dev` is one",
}


class Problem(Exception):
    """What ends a command: the message, what the user may try, and the exit code."""

    def __init__(self, message: str, *, hint: str = "", code: ExitCode = ExitCode.failed) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def stdout() -> Console:
    """Honours NO_COLOR and FORCE_COLOR; no colour when piped."""
    piped = not sys.stdout.isatty()
    return Console(width=WIDTH_PIPED if piped else None, highlight=False, soft_wrap=piped)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def chosen(format: Format | None) -> Format:
    """A table on a terminal, else JSON, unless the user said which."""
    return format or (Format.table if sys.stdout.isatty() else Format.json)


def status_markup(status: str) -> str:
    style = STYLES.get(status)
    return f"[{style}]{escape(status)}[/{style}]" if style else escape(status)


def print_json(value: object, format: Format = Format.json) -> None:
    data = msgspec.json.encode(value, enc_hook=str)
    sys.stdout.write((data if format is Format.jsonl else msgspec.json.format(data, indent=2)).decode() + "\n")
    sys.stdout.flush()


def print_value(value: object, format: Format | None) -> None:
    """A user's value, as JSON; text as it is on a terminal."""
    if (format := chosen(format)) is Format.table and isinstance(value, str):
        stdout().print(value, markup=False)
    else:
        print_json(value, Format.json if format is Format.table else format)


def print_one(value: Mapping[str, Any], format: Format | None, table: Callable[[], RenderableType]) -> None:
    """One object: as JSON, or as what `table` makes of it."""
    if (format := chosen(format)) is Format.table:
        stdout().print(table())
    else:
        print_json(value, format)


def print_rows(rows: Sequence[Mapping[str, Any]], format: Format | None, table: Callable[[], RenderableType]) -> None:
    """A list: `json` is one array, `jsonl` one object a line."""
    match chosen(format):
        case Format.table:
            stdout().print(table())
        case Format.json:
            print_json(rows)
        case Format.jsonl:
            for row in rows:
                print_json(row, Format.jsonl)


def plain_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def exit_with(problem: Problem) -> NoReturn:
    """Message and `try:` line on stderr, then the exit code."""
    console = stderr()
    console.print(f"[bold red]error:[/] {escape(str(problem))}")
    if problem.hint:
        console.print(f"  [dim]try:[/] {escape(problem.hint)}")
    raise SystemExit(problem.code.value)
