"""`perdure dev`: the engine on SQLite in this process, the worker as a child that is restarted and reloaded."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from perdure._worker.supervision import Ready
from perdure.cli import declared
from perdure.cli import session as cli
from perdure.cli.locations import DATABASE, socket_path
from perdure.cli.output import ExitCode, Format, Problem, print_json, stdout
from perdure.cli.supervisor import Notice, Supervisor

if TYPE_CHECKING:
    from perdure_runtime.embedded import Embedded
    from perdure_runtime.ports import Ports

EXIT_INTERRUPTED = 130
GRACE_SECONDS = 5.0
"""For the attempts under way at a reload or Ctrl-C: a person waits for it. Longer ones are delivered again."""


@asynccontextmanager
async def engine(database: Path, namespace: str) -> AsyncIterator[tuple[Embedded, Ports]]:
    """The engines on this file, reachable through its socket.

    Raises:
        AlreadyInUse: another process holds the file.
    """
    # Here, since they are half of what `perdure --help` would wait for.
    from perdure_runtime.adapters.socket import serve
    from perdure_runtime.adapters.sqlite import open_sqlite
    from perdure_runtime.clock import SystemClock
    from perdure_runtime.embedded import Embedded

    database.parent.mkdir(parents=True, exist_ok=True)
    opened = await open_sqlite(database, SystemClock())
    try:
        server = await serve(opened.ports, socket_path(database))
        try:
            async with Embedded(opened.ports, namespace) as embedded:
                yield embedded, opened.ports
        finally:
            await server.close()
    finally:
        await opened.close()


def worker_command(app: str, database: Path, namespace: str) -> list[str]:
    """Arguments after `python` of a worker of this app on this engine. It ends when its stdin does."""
    where = ["--socket", str(socket_path(database)), "--namespace", namespace]
    return ["-m", "perdure._worker", app, *where, "--grace", str(GRACE_SECONDS), "--supervised"]


class Announcer:
    """Tells what happens: sentences on a terminal, else one JSON object a line."""

    def __init__(self, app: str, database: Path, started: float) -> None:
        self._app = app
        self._database = database
        self._started = started
        self._plain = sys.stdout.isatty()

    def ready(self) -> None:
        seconds = time.perf_counter() - self._started
        self._tell(
            f"[bold]perdure dev[/] {escape(self._app)}   [dim]engine ready in {seconds:.2f} s on "
            f"{escape(str(self._database))}; Ctrl-C ends it[/]",
            event="ready",
            pid=os.getpid(),
            database=str(self._database),
            socket=str(socket_path(self._database)),
            seconds=round(seconds, 3),
        )

    def worker(self, notice: Notice) -> None:
        if notice.ready is not None:
            declared.write(self._database, self._app, notice.ready)
        code = f" (exit code {notice.code})" if notice.event == "exited" else ""
        colour = {"ready": "green", "exited": "red"}.get(notice.event, "dim")
        self._tell(
            f"[{colour}]worker {notice.event}[/]   [dim]process {notice.pid}{code}[/]{_names(notice.ready)}",
            event=f"worker-{notice.event}",
            pid=notice.pid,
            code=notice.code,
            workflows=notice.ready.workflows if notice.ready else None,
            tasks=notice.ready.tasks if notice.ready else None,
        )

    def stopping(self) -> None:
        self._tell(
            f"stopping: tasks under way have {GRACE_SECONDS:.0f} s, what they do not end is done later; "
            "Ctrl-C again stops at once",
            event="stopping",
        )

    def _tell(self, sentence: str, **facts: Any) -> None:
        if self._plain:
            stdout().print(sentence)
        else:
            print_json({key: value for key, value in facts.items() if value is not None}, Format.jsonl)


def _names(ready: Ready | None) -> str:
    """What can be started, and how."""
    if ready is None:
        return ""
    if not ready.workflows and not ready.tasks:
        return "\n  [yellow]the app declares no workflow and no task: put @workflow or @task above a function[/]"
    lines = [f"\n  {kind:9}  {escape(', '.join(names))}" for kind, names in _kinds(ready) if names]
    if ready.workflows:
        lines.append(f"\n  [dim]try:       perdure start {escape(ready.workflows[0])} …   perdure list[/]")
    return "".join(lines)


def _kinds(ready: Ready) -> list[tuple[str, list[str]]]:
    return [("workflows", ready.workflows), ("tasks", ready.tasks)]


def dev(
    app: Annotated[str, typer.Argument(metavar="APP", help="app.py, or package.module")],
    *,
    database: Annotated[
        Path, typer.Option("--db", envvar="PERDURE_DB", help="Created if it does not exist.", metavar="FILE")
    ] = DATABASE,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
) -> None:
    """Run an engine and a worker for APP here. Runs survive restarts; the worker reloads when a file changes."""
    announcer = Announcer(app, database, time.perf_counter())
    if app.endswith(".py") and not Path(app).is_file():
        raise Problem(f"there is no file {app!r}", hint="perdure dev examples/hello.py", code=ExitCode.usage)

    async def serve() -> None:
        async with engine(database, namespace) as (embedded, _):
            declared.remove(database)
            supervisor = Supervisor(worker_command(app, database, namespace), announcer.worker)
            try:
                await _until_stopped(embedded, supervisor, announcer)
            finally:
                declared.remove(database)

    cli.run(serve)


async def _until_stopped(embedded: Embedded, supervisor: Supervisor, announcer: Announcer) -> None:
    """Until a first Ctrl-C or SIGTERM, which drains, or until an engine fails; a second one ends everything at once."""
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
    await asyncio.wait({supervised, failed, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, supervised):
        task.cancel()
    await asyncio.wait({waiting, supervised})
    if failed.done():
        failed.result()
    failed.cancel()
