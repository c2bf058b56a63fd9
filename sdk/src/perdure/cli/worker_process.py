"""The worker child of `perdure dev`: `python -m perdure.cli.worker_process APP --socket S --ready-fd N`.

It ends when its parent does (their pipe closes), drains on SIGTERM, and ends with EXIT_RELOAD when a source file
changed. An app that cannot be imported is shown with its traceback, and tried again once a file changes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType

from perdure.cli import apps
from perdure.cli.output import Problem
from perdure.cli.supervisor import EXIT_RELOAD
from perdure.worker import Worker
from perdure_runtime.adapters.socket import connect

POLL_SECONDS = 0.3
"""Between two looks at the source files: a person does not notice, and 1,000 files cost 1 % of a core."""
GRACE_SECONDS = 5.0
"""For the attempts under way at a reload or Ctrl-C: a person waits for it. Longer ones are delivered again."""


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # not sys.stdin.read(): its lock would be held when the interpreter ends
        pass
    os._exit(1)


def _changed_at(files: list[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in files if path.exists()}


def _wait_for_change(files: list[Path]) -> None:
    before = _changed_at(files)
    while _changed_at(files) == before:
        time.sleep(POLL_SECONDS)


def _load(app: str) -> ModuleType:
    """The app; if it cannot be imported this process ends once a file changes."""
    try:
        return apps.load(app)
    except (Exception, SystemExit) as error:
        if isinstance(error, Problem):
            sys.stderr.write(f"error: {error}\n")
        else:
            traceback.print_exc()
        sys.stderr.write("the worker waits for a change of the source\n")
        path = Path(app)
        _wait_for_change([*apps.source_files(), *([path] if path.suffix == ".py" else [])])
        raise SystemExit(EXIT_RELOAD) from error


async def _serve(module: ModuleType, socket: Path, namespace: str, ready_fd: int) -> int:
    engine = await connect(socket)
    try:
        worker = Worker(engine.broker, [module], namespace=namespace, grace_seconds=GRACE_SECONDS)
        return await _work(worker, ready_fd)
    finally:
        await engine.close()


async def _work(worker: Worker, ready_fd: int) -> int:
    """Until SIGTERM or a changed file; returns the exit code."""
    loop = asyncio.get_running_loop()
    exit_code = 0

    def reload() -> None:
        nonlocal exit_code
        exit_code = EXIT_RELOAD
        worker.drain()

    def watch() -> None:
        _wait_for_change(apps.source_files())
        loop.call_soon_threadsafe(reload)

    loop.add_signal_handler(signal.SIGTERM, worker.drain)
    running = asyncio.create_task(worker.run(), name="worker")
    ready = asyncio.create_task(worker.ready.wait(), name="ready")
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        os.write(ready_fd, b"1")
        threading.Thread(target=watch, daemon=True, name="source watch").start()
    ready.cancel()
    await running
    return exit_code


def main() -> None:
    """Entry point of the child."""
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True, name="parent watch").start()
    module = _load(options.app)
    sys.exit(asyncio.run(_serve(module, options.socket, options.namespace, options.ready_fd)))


if __name__ == "__main__":
    main()
