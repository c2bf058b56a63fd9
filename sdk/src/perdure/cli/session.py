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
from perdure.cli import EXIT_INTERRUPTED, interruptible
from perdure.cli.locations import DATABASE, TOKEN, URL, api_url, database_given, socket_path
from perdure.cli.output import ExitCode, Format, Problem, exit_with
from perdure.errors import (
    AlreadyStarted,
    DefinitionError,
    NamespaceNotServed,
    NotInstalled,
    NotInWorkflow,
    PayloadTooLarge,
    PerdureError,
    QueryFailed,
    Refused,
    RunFailed,
    RunNotFound,
    SerializationError,
    Unavailable,
    UnknownName,
    UpdateFailed,
)
from perdure_runtime.errors import AlreadyInUse, StorageUnavailable

if TYPE_CHECKING:
    from perdure.client import Client

T = TypeVar("T")


def _database(context: typer.Context, parameter: typer.CallbackParam, value: Path) -> Path:
    source = context.get_parameter_source(parameter.name or "")
    database_given(source is not None and source.name == "COMMANDLINE")
    return value


Database = Annotated[
    Path,
    typer.Option(
        "--db",
        envvar="PERDURE_DB",
        callback=_database,
        help=f"Database of the `perdure dev` to talk to, also with {URL} set.",
        metavar="FILE",
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", envvar="PERDURE_NAMESPACE", help="Namespace.")]
Output = Annotated[
    Format | None, typer.Option("--output", "-o", help="Default: table on a terminal, else json.", show_default=False)
]

DEFAULT_DATABASE = DATABASE
DEFAULT_NAMESPACE = "default"


_WRONG = {UnknownName.__name__: ExitCode.not_found, SerializationError.__name__: ExitCode.usage}
"""What a query or an update fails with before any code of the user's runs, by the name that came from there."""


def with_client(database: Path, namespace: str, work: Callable[[Client], Awaitable[T]], *, about: str = "") -> T:
    """Runs `work` with a client of the API at PERDURE_URL, else of the `perdure dev` that holds this database.

    With --db the latter, whatever PERDURE_URL says. Errors end the program.

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

    if (url := api_url()) and not url.startswith(("http://", "https://")):
        raise Problem(f"{URL}={url} is no URL", hint=f"{URL}=http://{url}", code=ExitCode.usage)
    return run(at_url if url else connected, about=about)


def run(work: Callable[[], Awaitable[T]], *, about: str = "") -> T:
    """`asyncio.run`, with errors as messages and exit codes. `about` as for `with_client`."""

    async def awaited() -> T:
        return await work()

    try:
        with interruptible():
            return asyncio.run(awaited())
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except (PerdureError, Problem) as error:
        exit_with(problem_of(error, about))


def problem_of(error: Exception, about: str = "") -> Problem:  # noqa: C901 - one branch per kind
    """What to tell of an error, and its exit code. `about` as for `with_client`."""
    match error:
        case Problem():
            return error
        case NamespaceNotServed():
            return Problem(str(error), hint=f"--namespace {error.served[0]}", code=ExitCode.not_found)
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
        case QueryFailed() | UpdateFailed():
            return Problem(str(error), code=_WRONG.get(getattr(error.__cause__, "name", ""), ExitCode.failed))
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


_MEANT_AS_JSON = frozenset('{["0123456789')
"""How a text begins that is no bare word: what is wrong with it is news."""


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
        where = f" ({error})" if text[:1] in _MEANT_AS_JSON else ""
        raise Problem(f"{what} is not JSON: {text!r}{where}", hint=f"'{quoted}'", code=ExitCode.usage) from error


def parse_assignments(assignments: list[str], option: str) -> dict[str, Any]:
    """`POSITION=JSON` as a mapping."""
    parsed: dict[str, Any] = {}
    for text in assignments:
        position, equals, value = text.partition("=")
        if not equals or not position:
            raise Problem(
                f"{option} takes POSITION=JSON, not {text!r}", hint=f"{option} 2='[\"corrected\"]'", code=ExitCode.usage
            )
        if position in parsed:
            raise Problem(f"{option} {position} is given more than once", hint="one of them", code=ExitCode.usage)
        parsed[position] = parse_json(value, f"{option} {position}")
    return parsed
