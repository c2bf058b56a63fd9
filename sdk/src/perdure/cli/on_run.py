"""Commands about one run: they all take its id, and the same options that say where it is."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from perdure._names import check_workflow_id
from perdure.cli.declared import Declared, read, told_at
from perdure.cli.output import Format
from perdure.cli.session import DEFAULT_DATABASE, DEFAULT_NAMESPACE, Database, Namespace, Output, with_client

if TYPE_CHECKING:
    from perdure.handle import Handle

P = ParamSpec("P")

WorkflowId = Annotated[str, typer.Argument(metavar="ID", help="Workflow id.")]
RunId = Annotated[str, typer.Option("--run", help="Run id; default: the current run.", show_default=False)]


@dataclass(frozen=True)
class Target:
    """The run that a command is about."""

    run: Handle[Any]
    database: Path | None
    """Of the `perdure dev` that it is in."""

    def look(self) -> Declared | None:
        """What the worker there has now."""
        return read(self.database)


def _where(
    *,
    run_id: RunId = "",
    output: Output = None,
    database: Database = DEFAULT_DATABASE,
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """The options that all of them have; only its signature counts."""


Answer = Callable[[str, Any, Format | None], None]
"""Prints what the work gave: the run's id, that value, the format that was asked for."""


def on_run(answer: Answer) -> Callable[[Callable[Concatenate[Target, P], Awaitable[Any]]], Callable[..., None]]:
    """Makes a command of `async def work(target, ...)`: ID comes first, and the options of `_where` last."""

    def make(work: Callable[Concatenate[Target, P], Awaitable[Any]]) -> Callable[..., None]:
        @functools.wraps(work)
        def command(id: str, **given: Any) -> None:
            _check_id(id)
            run_id, output = given.pop("run_id"), given.pop("output")
            database: Path = given.pop("database")
            call: Callable[..., Awaitable[Any]] = work

            async def done(client: Any) -> Any:
                there = await told_at(client, database)
                return await call(Target(client.handle(id, run_id=run_id), there), **given)

            answer(id, with_client(database, given.pop("namespace"), done, about=id), output)

        shown = _shown(work)
        command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in shown}
        return command

    return make


def _check_id(id: str) -> None:
    try:
        check_workflow_id(id)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="ID") from None


def _shown(work: Callable[..., Any]) -> list[inspect.Parameter]:
    """What the command line makes arguments and options of."""
    own = list(_parameters(work))[1:]
    id = inspect.Parameter("id", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=WorkflowId)
    return [id, *own, *_parameters(_where)]


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(fn, include_extras=True)
    return [each.replace(annotation=hints[each.name]) for each in inspect.signature(fn).parameters.values()]
