"""From a command to the engine and back: the connection, and which exit code an error becomes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from perdure import _app
from perdure.cli.locations import DATABASE, TOKEN, URL, api_url, socket_path
from perdure.cli.output import ExitCode, Format, Problem, exit_with
from perdure.errors import (
    AlreadyStarted,
    DefinitionError,
    NotInstalled,
    NotInWorkflow,
    PayloadTooLarge,
    PerdureError,
    Refused,
    RunFailed,
    RunNotFound,
    SerializationError,
    Unavailable,
)
from perdure_runtime.errors import AlreadyInUse, StorageUnavailable

if TYPE_CHECKING:
    from perdure.client import Client

T = TypeVar("T")

Database = Annotated[
    Path, typer.Option("--db", envvar="PERDURE_DB", help="Database of the `perdure dev` to talk to.", metavar="FILE")
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", envvar="PERDURE_NAMESPACE", help="Namespace.")]
Output = Annotated[
    Format | None, typer.Option("--output", "-o", help="Default: table on a terminal, else json.", show_default=False)
]

DEFAULT_DATABASE = DATABASE
DEFAULT_NAMESPACE = "default"


def with_client(database: Path, namespace: str, work: Callable[[Client], Awaitable[T]], *, about: str = "") -> T:
    """Runs `work` with a client of the API at PERDURE_URL, else of the `perdure dev` that holds this database.

    Errors end the program.

    Args:
        about: the workflow id of the run that it is about, if it is about one.
    """
    from perdure.client import Client

    path = socket_path(database)

    async def at_url() -> T:
        async with Client.connect(api_url(), namespace=namespace, token=os.environ.get(TOKEN, "")) as client:
            return await work(client)

    async def connected() -> T:
        if not path.exists():
            raise _not_running(database)
        async with contextlib.AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(Client.connect(path, namespace=namespace))
            except Unavailable as error:
                if isinstance(_root(error), ConnectionRefusedError):  # one that was killed leaves its socket behind
                    raise _not_running(database) from error
                raise
            return await work(client)

    return run(at_url if api_url() else connected, about=about)


def run(work: Callable[[], Awaitable[T]], *, about: str = "") -> T:
    """`asyncio.run`, with errors as messages and exit codes. `about` as for `with_client`."""

    async def awaited() -> T:
        return await work()

    try:
        return asyncio.run(awaited())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (PerdureError, Problem) as error:
        exit_with(problem_of(error, about))


def problem_of(error: Exception, about: str = "") -> Problem:
    """What to tell of an error, and its exit code. `about` as for `with_client`."""
    match error:
        case Problem():
            return error
        case RunNotFound():
            return Problem(str(error), hint="perdure list", code=ExitCode.not_found)
        case AlreadyStarted():
            return Problem(str(error), hint="another --id, or --conflict use-existing", code=ExitCode.conflict)
        case AlreadyInUse():
            return Problem(str(error), hint="stop the other one, or --db another.sqlite", code=ExitCode.conflict)
        case Refused():
            return Problem(
                str(error), hint=f"perdure show {about}" if about else "perdure list", code=ExitCode.conflict
            )
        case _app.AppNotFound():
            return Problem(str(error), hint="perdure dev app.py   (a file), or   package.module", code=ExitCode.usage)
        case Unavailable() | StorageUnavailable():
            return Problem(str(error), hint=_engine_hint(), code=ExitCode.unavailable)
        case SerializationError() | PayloadTooLarge() | DefinitionError() | NotInWorkflow() | NotInstalled():
            return Problem(str(error), code=ExitCode.usage)
        case RunFailed(workflow_id=id) if id:
            return Problem(str(error), hint=f"perdure show {id}")
        case _:
            return Problem(str(error) or repr(error))


def load(app: str) -> ModuleType:
    """The app's module. Its own errors end the program, with the traceback from its first line on.

    Raises:
        AppNotFound, DefinitionError: as `_app.load`.
    """
    try:
        return _app.load(app)
    except PerdureError:
        raise
    except (Exception, SystemExit) as error:
        sys.stderr.write(_app.told(error))
        raise Problem(f"{app} cannot be imported") from error


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _engine_hint() -> str:
    return f"{URL}={api_url()} names the API, {TOKEN} what it asks for" if api_url() else "perdure dev APP"


def _not_running(database: Path) -> Problem:
    return Problem(
        f"no `perdure dev` runs on {database}",
        hint=f"perdure dev app.py --db {database}",
        code=ExitCode.unavailable,
    )


def parse_json(text: str, what: str) -> Any:
    """An argument that must be JSON.

    Raises:
        Problem: it is none. A bare word is the usual mistake, so the message shows it quoted.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        if text.startswith("-"):  # options that nobody knows come here, since numbers may be negative
            raise Problem(f"no such option: {text}", hint="the command with --help", code=ExitCode.usage) from error
        quoted = msgspec.json.encode(text).decode()
        raise Problem(f"{what} is not JSON: {text!r} ({error})", hint=f"'{quoted}'", code=ExitCode.usage) from error


def parse_assignments(assignments: list[str], option: str) -> dict[str, Any]:
    """`POSITION=JSON` as a mapping."""
    parsed = {}
    for text in assignments:
        position, equals, value = text.partition("=")
        if not equals or not position:
            raise Problem(
                f"{option} takes POSITION=JSON, not {text!r}", hint=f"{option} 2='[\"corrected\"]'", code=ExitCode.usage
            )
        parsed[position] = parse_json(value, f"{option} {position}")
    return parsed
