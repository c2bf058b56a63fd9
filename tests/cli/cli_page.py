"""docs/reference/cli.md, made from the commands themselves. `python -m tests.cli.cli_page` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from perdure.cli.application import application
from perdure.cli.output import MEANINGS

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"
COMMON = ("--help", "--run", "--output", "--db", "--namespace")
INTRODUCTION = """\
# The command line

Made from the commands by `python -m tests.cli.cli_page`; a test compares.

Data goes to stdout, all else to stderr.
On a terminal you get tables, elsewhere JSON; `-o table`, `-o json` and `-o jsonl` choose.
Arguments and values are JSON: a text is `'"ada"'`.
`NO_COLOR` and `FORCE_COLOR` are honoured.

Options of nearly every command: `--db FILE` (or `PERDURE_DB`) and `--namespace`, `-n` (or `PERDURE_NAMESPACE`) say
which engine and what in it; `--output`, `-o` the format; `--run` an earlier run of the workflow id.
`--help` tells them all.

With `PERDURE_URL` set, commands ask the API there instead of a `perdure dev`, and show it `PERDURE_TOKEN`.
An option that is given wins over the environment: with `--db FILE` they ask the `perdure dev` all the same.
`perdure admin` prepares the servers of a cluster; it and `perdure worker` read the [settings](settings.md) of services.
The first needs the extra `api`, the others `cluster`: see [begin](../howto/begin.md).
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *_exit_codes(), "", *_commands()]).rstrip() + "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n\n| Code | Meaning |\n| --- | --- |\n| 0 | it is done |"
    yield from (f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items())
    yield "| 130 | Ctrl-C |"


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(application)
    for name, command in _flat(group, ""):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join(_usage(each) for each in arguments)
        told = " ".join(command.help.split())
        yield f"## perdure {name}\n\n`{f'perdure {name} {usage}'.strip()}`\n\n{told}\n"
        own = [each for each in command.params if each not in arguments and each.opts[0] not in COMMON]
        if own:
            yield "| Option | Meaning |\n| --- | --- |"
            yield from (f"| {_names(each)} | {each.help or ''} |" for each in own)
            yield ""


def _flat(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _flat(command, f"{before}{name} ")
        else:
            yield before + name, command


def _usage(argument: Any) -> str:
    metavar: str = argument.metavar
    return metavar if argument.required or metavar.startswith("[") else f"[{metavar}]"


def _names(option: Any) -> str:
    value = f" `{option.metavar}`" if option.metavar else ""
    return ", ".join(f"`{name}`" for name in option.opts) + value


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
