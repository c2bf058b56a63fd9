"""`perdure dev`: the engine on SQLite in this process, the worker as a child that is restarted and reloaded."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.markup import escape

from perdure import _app
from perdure._worker.logs import log_to_stderr
from perdure._worker.supervision import Broken, Ready
from perdure.cli import EXIT_INTERRUPTED, declared
from perdure.cli import session as cli
from perdure.cli.dev_api import serve_api
from perdure.cli.locations import DATABASE, socket_path
from perdure.cli.output import Format, Problem, print_json, stdout
from perdure.cli.standing import Standing
from perdure.cli.supervisor import Notice, Supervisor
from perdure_runtime.errors import StorageUnavailable, UnfitDatabase

if TYPE_CHECKING:
    from perdure_runtime.embedded import Embedded
    from perdure_runtime.ports import Ports

GRACE_SECONDS = 5.0
"""For the attempts under way at a reload or Ctrl-C: a person waits for it. Longer ones are delivered again."""

PORT_MAX = 65_535
NOTHING = "the app declares no workflow and no task: put @workflow or @task above a function"


@asynccontextmanager
async def engine(
    database: Path, namespace: str, standing: Standing | None = None, *, survive_power_loss: bool = False
) -> AsyncIterator[tuple[Embedded, Ports]]:
    """The engines on this file, reachable through its socket. `standing`: of the app whose worker is ours.

    Raises:
        AlreadyInUse: another process holds the file.
        Problem: it cannot be made or opened, or is something else's.
    """
    # Here, since they are half of what `perdure --help` would wait for.
    from perdure_runtime.adapters.socket import serve
    from perdure_runtime.adapters.sqlite import open_sqlite
    from perdure_runtime.clock import SystemClock
    from perdure_runtime.collecting import collect_rarely
    from perdure_runtime.embedded import Embedded

    if database != DATABASE and not database.parent.exists():  # a slip of the pen would make an empty engine there
        raise Problem(
            f"{database} cannot be made: there is no folder {database.parent}",
            hint=f"mkdir -p {database.parent}   or   --db another.sqlite",
        )
    try:
        database.parent.mkdir(exist_ok=True)
        opened = await open_sqlite(database, SystemClock(), survive_power_loss=survive_power_loss)
    except OSError as error:
        raise Problem(f"{database} cannot be made: {error.strerror}", hint="--db another.sqlite") from error
    except UnfitDatabase as error:
        raise Problem(str(error), hint="move it away, or --db another.sqlite") from error
    except StorageUnavailable as error:
        raise Problem(str(error), hint="--db another.sqlite") from error
    try:
        announced = None if standing is None else partial(standing.announced, opened.ports)
        server = await serve(opened.ports, socket_path(database), announced=announced, namespaces=[namespace])
        try:
            async with Embedded(opened.ports, namespace) as embedded:
                collect_rarely()
                yield embedded, opened.ports
        finally:
            await server.close()
    finally:
        await opened.close()


def worker_command(app: str, database: Path, namespace: str, *, json_logs: bool) -> list[str]:
    """Arguments after `python` of a worker of this app on this engine. It ends when its stdin does."""
    where = ["--socket", str(socket_path(database)), "--namespace", namespace]
    logs = ["--json-logs"] if json_logs else []
    return ["-m", "perdure._worker", app, *where, *logs, "--grace", str(GRACE_SECONDS), "--supervised"]


class Announcer:
    """Tells what happens: sentences on a terminal, else one JSON object a line."""

    def __init__(self, app: str, database: Path, started: float) -> None:
        self._app = app
        self._database = database
        self._started = started
        self.plain = sys.stdout.isatty()
        """For people; the logs of all its processes follow it."""

    def ready(self) -> None:
        seconds = time.perf_counter() - self._started
        self._tell(
            f"[bold]perdure dev[/] {escape(self._app)}   [dim]engine ready in {seconds:.2f} s; Ctrl-C ends it[/]\n"
            f"[dim]runs are kept in {escape(str(self._database))}[/]",
            event="ready",
            pid=os.getpid(),
            database=str(self._database),
            socket=str(socket_path(self._database)),
            seconds=round(seconds, 3),
        )

    def worker(self, notice: Notice) -> None:
        code = f" (exit code {notice.code})" if notice.event == "exited" else ""
        colour = {"ready": "green", "exited": "red", "broken": "red"}.get(notice.event, "dim")
        match notice.told:
            case Ready():
                named = _names(notice.told)
                facts: dict[str, Any] = msgspec.structs.asdict(notice.told)
                facts["left_out"] = notice.told.left_out or None
                facts["problem"] = None if _has_some(notice.told) else NOTHING
            case Broken(reason=reason):
                named, facts = f"\n  {escape(reason)}", {"reason": reason}
            case None:
                named, facts = "", {}
        self._tell(
            f"[{colour}]worker {notice.event}[/]   [dim]process {notice.pid}{code}[/]{named}",
            event=f"worker-{notice.event}",
            pid=notice.pid,
            code=notice.code,
            **facts,
        )

    def api(self, url: str, *, instead_of: int | None = None) -> None:
        taken = f"[yellow]port {instead_of} is in use, so the API is at another; --port chooses one[/]\n"
        self._tell(
            f"{'' if instead_of is None else taken}[dim]API at {url}; PERDURE_URL={url} makes commands ask it[/]",
            event="api",
            url=url,
            port_in_use=instead_of,
        )

    def no_api(self, reason: str) -> None:
        self._tell(f"[dim]no API: {escape(reason)}[/]", event="no-api", reason=reason)

    def stopping(self) -> None:
        self._tell(
            f"stopping: tasks under way have {GRACE_SECONDS:.0f} s, what they do not end is done later; "
            "Ctrl-C again stops at once",
            event="stopping",
        )

    def _tell(self, sentence: str, **facts: Any) -> None:
        if self.plain:
            stdout().print(sentence)
        else:
            print_json({key: value for key, value in facts.items() if value is not None}, Format.jsonl)


def _names(ready: Ready) -> str:
    """What can be started, and how."""
    if not _has_some(ready):
        return f"\n  [yellow]{NOTHING}[/]"
    lines = [f"\n  {kind:9}  {escape(', '.join(names))}" for kind, names in _kinds(ready) if names]
    if ready.workflows:
        lines.append(f"\n  [dim]try:       perdure start {escape(ready.workflows[0])} …   perdure list[/]")
    return "".join(lines)


def _has_some(ready: Ready) -> bool:
    return bool(ready.workflows or ready.tasks or ready.left_out)


def _kinds(ready: Ready) -> list[tuple[str, list[str]]]:
    return [("workflows", ready.workflows), ("tasks", ready.tasks), ("left out", sorted(ready.left_out))]


def dev(
    app: Annotated[str, typer.Argument(metavar="APP", help="app.py, or package.module")],
    *,
    database: Annotated[
        Path,
        typer.Option(
            "--db", envvar="PERDURE_DB", help="Created if it does not exist, in a folder that does.", metavar="FILE"
        ),
    ] = DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=PORT_MAX,
            help="Of the HTTP API on 127.0.0.1; default: 8420, or any free one if that is in use.",
            show_default=False,
        ),
    ] = None,
    survive_power_loss: Annotated[
        bool, typer.Option("--survive-power-loss", help="What is confirmed is on the disk first; slower.")
    ] = False,
) -> None:
    """Run an engine and a worker for APP here. Runs survive restarts; the worker reloads when a file changes.

    At a reload and at Ctrl-C, tasks under way have 5 s to end; those that do not are run again. Ctrl-C again ends all.
    """
    announcer = Announcer(app, database, time.perf_counter())
    _app.check(app)
    log_to_stderr("dev", json=not announcer.plain, level="WARNING")

    async def serve() -> None:
        standing = Standing(app, database)
        async with engine(database, namespace, standing, survive_power_loss=survive_power_loss) as (embedded, ports):
            declared.remove(database)
            announced = partial(standing.announced, ports, namespace)
            api = serve_api(ports, namespace, port, announced, told=announcer.api, missing=announcer.no_api)
            command = worker_command(app, database, namespace, json_logs=not announcer.plain)

            def happened(notice: Notice) -> None:
                standing.on(notice)
                announcer.worker(notice)

            supervisor = Supervisor(command, happened)
            try:
                await _until_stopped(embedded, supervisor, announcer, api)
            finally:
                declared.remove(database)

    cli.run(serve)


async def _until_stopped(
    embedded: Embedded, supervisor: Supervisor, announcer: Announcer, api: Coroutine[Any, Any, None]
) -> None:
    """Until a first Ctrl-C or SIGTERM, which drains, or until an engine or the API fails.

    A second one ends everything at once.
    """
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            supervisor.kill()
            os._exit(EXIT_INTERRUPTED)
        stopped.set()
        announcer.stopping()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    announcer.ready()
    supervised = asyncio.create_task(supervisor.run(), name="supervisor")
    failed = asyncio.create_task(embedded.failed(), name="engines")
    waiting = asyncio.create_task(stopped.wait(), name="stop signal")
    asked = asyncio.create_task(_until_it_fails(api), name="api")
    await asyncio.wait({supervised, failed, waiting, asked}, return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in (failed, asked) if task.done()]
    for task in (waiting, supervised, asked):
        task.cancel()
    await asyncio.wait({waiting, supervised, asked})
    for task in ended:
        task.result()
    failed.cancel()


async def _until_it_fails(api: Coroutine[Any, Any, None]) -> None:
    """Without what the API needs it ends at once, and all goes on without it."""
    await api
    await asyncio.Event().wait()
