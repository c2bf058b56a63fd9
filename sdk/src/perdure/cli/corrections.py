"""What `--edit` and `--skip` say: parsed, and checked against what the worker of a `perdure dev` declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from perdure._client import edits as checks
from perdure.cli.declared import UNCHECKED, registry_of
from perdure.cli.on_run import Target
from perdure.cli.output import ExitCode, Problem
from perdure.cli.session import parse_assignments
from perdure.convert import describe
from perdure.errors import RunNotFound, SerializationError
from perdure.signature import Signature, result_hint

Edits = Annotated[
    list[str],
    typer.Option("--edit", metavar="POSITION=JSON", help="New arguments, all of them as a JSON array, of a task."),
]
Skips = Annotated[
    list[str], typer.Option("--skip", metavar="POSITION=JSON", help="A result instead of running the task.")
]
Unchecked = Annotated[bool, typer.Option(UNCHECKED, help="Whatever types the tasks declare.")]


async def corrections(
    at: Target, edit: list[str], skip: list[str], *, unchecked: bool
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Arguments and results by position.

    Raises:
        Problem: they are not of the form, or not of the types that are declared.
    """
    edits, skips = parse_assignments(edit, "--edit"), parse_assignments(skip, "--skip")
    known = {} if unchecked or not (edits or skips) else await _signatures(at)
    for position, value in edits.items():
        if not isinstance(value, list):
            raise _no_array(position, value, known.get(position))
    for given in checks.edits_of(edits, {}) + checks.edits_of({}, skips):
        try:
            checks.check([given], known)
        except SerializationError as error:
            raise Problem(
                f"--{error}", hint=_form(given.position, known[given.position], given.args is None), code=ExitCode.usage
            ) from error
    return edits, skips


async def _signatures(at: Target) -> dict[str, Signature]:
    """By position, as far as they are known here."""
    declared = at.look()
    registry = registry_of(declared) if declared is not None else None
    if registry is None:
        return {}
    try:
        return checks.signatures_at(await at.run.history(), registry)
    except RunNotFound:  # for the engine to tell
        return {}


def _form(position: str, signature: Signature, skipped: bool) -> str:
    if skipped:
        return f"--skip {position}=RESULT   ({signature.name} returns {describe(result_hint(signature))})"
    return f"--edit {position}='[ARGUMENTS]'   (it is {signature!r})"


def _no_array(position: str, value: Any, signature: Signature | None) -> Problem:
    """An object is often meant as arguments by name, anything else as the only argument."""
    text = msgspec.json.encode(value).decode()
    message = f"--edit takes a JSON array with all arguments in their order, not {text}"
    by_name = _by_name(value, signature) if isinstance(value, dict) and signature is not None else None
    if by_name is not None:
        hint = _array(position, by_name)
    elif signature is not None and len(signature.names) != 1:
        hint = _form(position, signature, skipped=False)
    else:
        hint = _array(position, [value])
    return Problem(message, hint=hint, code=ExitCode.usage)


def _by_name(value: Mapping[str, Any], signature: Signature) -> list[Any] | None:
    """The values in the parameters' order, if the keys are the names of the first parameters."""
    names = signature.names[: len(value)]
    return [value[name] for name in names] if value and set(names) == value.keys() else None


def _array(position: str, values: list[Any]) -> str:
    quoted = msgspec.json.encode(values).decode().replace("'", "'\\''")
    return f"--edit {position}='{quoted}'"
