"""A worker as a process of its own, over a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from perdure_runtime.adapters.socket import serve
from perdure_schemas.common import TaskOptions
from perdure_schemas.messages import AttemptHeartbeat, AttemptOutcome, AttemptStarted, WorkerHello
from tests.sdk.worker.engine import Engine, value

pytestmark = pytest.mark.asyncio

STARTED_SECONDS_MAX = 60
"""Half a second on an idle machine; but all tests start processes, and several run at a time."""
HEARTBEATS = TaskOptions(heartbeat_timeout_ms=2_000)
APP = """
import asyncio, os, sys
from perdure.context import current_task
from perdure.task import task

@task
async def seed() -> list[int]:
    return [sys.flags.hash_randomization, os.getpid()]

@task(mode="process")
def pid() -> int:
    return os.getpid()

@task
async def held(gate: str) -> str:
    current_task().heartbeat()
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)
    return "done"
"""


async def test_a_process_runs_an_app_from_a_file_and_drains_on_sigterm() -> None:
    engine = Engine()
    await engine.open()
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a socket has at most 107 bytes
        app, socket, gate = (Path(folder) / name for name in ("shop_app.py", "e.sock", "gate"))
        app.write_text(APP)
        server = await serve(engine.ports, socket)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
        environment["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
        arguments = ["-m", "perdure._worker", str(app), "--socket", str(socket), "--build", "b7"]
        child = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)
        try:
            hello = await engine.next(WorkerHello, timeout=STARTED_SECONDS_MAX)
            assert (hello.build, hello.tasks) == ("b7", ["held", "pid", "seed"])
            await engine.run_task("seed")
            randomized, process = value((await engine.next(AttemptOutcome)).result)
            assert (randomized, process) == (0, child.pid)
            await engine.run_task("pid")
            assert value((await engine.next(AttemptOutcome)).result) not in (child.pid, os.getpid())
            run = await engine.run_task("held", str(gate), options=HEARTBEATS)
            await engine.next(AttemptStarted, lambda m: m.attempt_id == run.attempt_id)  # slow ones tell, too
            child.send_signal(signal.SIGTERM)
            gate.touch()
            outcome = await engine.next(AttemptOutcome)
            assert (outcome.attempt_id, value(outcome.result)) == (run.attempt_id, "done")
            assert await asyncio.wait_for(child.wait(), STARTED_SECONDS_MAX) == 0
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            await server.close()
            await engine.close()


async def test_an_attempt_of_a_killed_worker_is_delivered_again_and_announced() -> None:
    engine = Engine()
    await engine.open()
    with tempfile.TemporaryDirectory() as folder:
        app, socket, gate = (Path(folder) / name for name in ("shop_app.py", "e.sock", "gate"))
        app.write_text(APP)
        server = await serve(engine.ports, socket)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        arguments = ["-m", "perdure._worker", str(app), "--socket", str(socket)]
        children = [await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)]
        try:
            await engine.next(WorkerHello, timeout=STARTED_SECONDS_MAX)
            run = await engine.run_task("held", str(gate), options=HEARTBEATS)
            assert (await engine.next(AttemptStarted)).deliveries == 1
            await engine.next(AttemptHeartbeat)  # it was announced before its code began
            children[0].kill()
            await children[0].wait()
            gate.touch()
            children.append(await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment))
            assert (await engine.next(AttemptStarted, timeout=STARTED_SECONDS_MAX)).deliveries == 2
            assert (await engine.next(AttemptOutcome)).attempt_id == run.attempt_id
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
            await server.close()
            await engine.close()
