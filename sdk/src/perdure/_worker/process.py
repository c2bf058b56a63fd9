"""A worker as a process of its own: of a container, or the child of `perdure dev`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perdure import _app
from perdure._replay import guard
from perdure._worker.logs import log_early, log_to_stderr
from perdure._worker.sources import Sources
from perdure._worker.supervision import EXIT_RELOAD, Broken, Ready
from perdure.errors import DefinitionError
from perdure.registry import Registry
from perdure.worker import Worker

log = logging.getLogger("perdure.worker")

HASH_SEED = "0"
"""Sets of strings then iterate alike in every worker process, and so in every replay."""
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the process is told on its command line."""

    app: str
    socket: Path
    namespace: str
    build: str
    slots: int
    grace_seconds: float
    ready_fd: int | None
    """Where to write a Ready, or Broken."""
    supervised: bool
    """End when the standard input does, and with EXIT_RELOAD once a source file has changed."""
    json_logs: bool = False
    """One object a line, for programs; else lines for people."""


def pin_hash_seed(arguments: Sequence[str]) -> None:
    """Start this program again under HASH_SEED, with `arguments` after `python`, unless it runs under it already."""
    if sys.flags.hash_randomization:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, *arguments])


def main(options: Options) -> int:
    """Run the worker to its end; its exit code."""
    if options.supervised:
        threading.Thread(target=_end_with_parent, daemon=True, name="parent watch").start()
    sources = Sources(options.app)
    if options.json_logs:
        log_early("worker")
    try:
        registry = Registry([_app.load(options.app)])
        log_to_stderr("worker", json=options.json_logs)
        left_out = _left_out(registry, options)
    except (Exception, SystemExit) as error:
        _tell(_told(error), options)
        if not options.supervised:
            return 1
        _announce(Broken(_app.brief(error)), options)
        _tell("the worker waits for a change of the source", options)
        sources.add_culprits(error)
        sources.wait_for_change()
        return EXIT_RELOAD
    return asyncio.run(_serve(registry, left_out, options, sources))


def _left_out(registry: Registry, options: Options) -> dict[str, str]:
    """Workflows that the guard refuses, and why: of a supervised worker, which serves the others meanwhile.

    Raises:
        DefinitionError: it refuses some, and nobody would be told that they are left out.
    """
    mode = guard.mode_of(None)
    if not options.supervised:
        guard.check(mode, registry.workflows.values())
        return {}
    refused = guard.refusals(mode, registry.workflows.values())
    for name, reason in refused.items():
        del registry.workflows[name]
        _tell(f"error: {reason}\nuntil it is mended, {name} is left out", options)
    return refused


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # not sys.stdin.read(): its lock would be held when the interpreter ends
        pass
    os._exit(1)


def _told(error: BaseException) -> str:
    known = isinstance(error, (_app.AppNotFound, DefinitionError))
    return f"error: {error}" if known else _app.told(error)


def _tell(sentence: str, options: Options) -> None:
    """Before the app could set up logging."""
    if options.json_logs:
        log_to_stderr("worker", json=True)
        log.error("%s", sentence.rstrip(), extra={"action": "app_broken"})
    else:
        sys.stderr.write(sentence.rstrip() + "\n")
        sys.stderr.flush()


async def _serve(registry: Registry, left_out: dict[str, str], options: Options, sources: Sources) -> int:
    worker = Worker.connect(
        options.socket,
        registry,
        namespace=options.namespace,
        build=options.build,
        slots=options.slots,
        grace_seconds=options.grace_seconds,
    )
    running = asyncio.create_task(run_until_signal(worker), name="worker")
    reloading = asyncio.Event()
    await _once_ready(worker, running)
    if worker.ready.is_set():
        _announce(Ready(sorted(registry.workflows), sorted(registry.tasks), left_out), options)
        if options.supervised:
            _drain_on_change(worker, sources, reloading)
    await running
    return EXIT_RELOAD if reloading.is_set() else 0


async def run_until_signal(worker: Worker) -> None:
    """Run it; SIGTERM and SIGINT drain it."""
    loop = asyncio.get_running_loop()
    for number in END_SIGNALS:
        loop.add_signal_handler(number, worker.drain)
    try:
        await worker.run()
    finally:
        for number in END_SIGNALS:
            loop.remove_signal_handler(number)


async def _once_ready(worker: Worker, running: asyncio.Task[None]) -> None:
    """Returns early if it ends before it is ready."""
    ready = asyncio.create_task(worker.ready.wait(), name="ready")
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()


def _announce(told: Ready | Broken, options: Options) -> None:
    if options.ready_fd is not None:
        with os.fdopen(options.ready_fd, "wb") as pipe:
            pipe.write(msgspec.json.encode(told))


def _drain_on_change(worker: Worker, sources: Sources, reloading: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def reload() -> None:
        reloading.set()
        worker.drain()

    def watch() -> None:
        sources.wait_for_change()
        with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile
            loop.call_soon_threadsafe(reload)

    threading.Thread(target=watch, daemon=True, name="source watch").start()
