"""Processes for tasks of mode "process".

Each attempt has a process to itself while it runs, so one that dies takes nothing with it but its own attempt, and one
that must end is killed. `concurrent.futures` cannot tell which call broke its pool, and cannot kill one.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection

import msgspec

from perdure._worker.child import Call, Result
from perdure._worker.execution import Attempt, Ended, unreadable
from perdure._worker.threads import Threads
from perdure._worker.user_loop import Report
from perdure.convert import refuse_layers
from perdure.errors import PayloadUnreadable
from perdure_schemas.common import Failure

log = logging.getLogger("perdure.worker")


class Child:
    """A process that waits for a call, and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "perdure._worker.child", str(theirs.fileno())]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        self.connection = Connection(ours.detach())

    def call(self, call: Call) -> Result:
        """Raises EOFError or OSError when the process died."""
        self.connection.send_bytes(msgspec.msgpack.encode(call))
        return msgspec.msgpack.decode(self.connection.recv_bytes(), type=Result)

    def kill(self) -> None:
        self.process.kill()

    def reap(self) -> int:
        """Close it, wait for its end, and tell its exit code."""
        self.connection.close()
        try:
            return self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:  # busy, and nobody waits for its result any more
            self.process.kill()
            return self.process.wait()


class ProcessTasks:
    """Tasks of mode "process". A canceled or timed out one is killed."""

    def __init__(self, threads: Threads, report: Report) -> None:
        self._threads = threads
        self._report = report
        self._idle: list[Child] = []
        self._lock = threading.Lock()
        """Held to change `_idle` and the handles of attempts: a process is some attempt's, or idle, or to be reaped."""

    def start(self, attempt: Attempt) -> None:
        self._threads.submit(lambda: self._report(attempt, self._run(attempt)))

    def cancel(self, attempt: Attempt) -> None:
        with self._lock:  # or the process might meanwhile end this attempt and begin another
            child, attempt.handle = attempt.handle, None
            if child is not None:
                child.kill()

    def stop(self) -> None:
        while self._idle:
            self._idle.pop().reap()

    def _run(self, attempt: Attempt) -> Ended:
        try:
            call = _call_of(attempt)
        except PayloadUnreadable as error:
            return Ended(failure=unreadable(error))
        try:
            child = self._take_idle() or Child()
        except OSError as error:  # no memory, no descriptors: another worker may have them
            return Ended(failure=Failure(name=type(error).__name__, message=f"no process could be started: {error}"))
        with self._lock:
            attempt.handle = child
        if attempt.context.canceled or attempt.ending is not None:
            self.cancel(attempt)
        try:
            result = child.call(call)
        except (EOFError, OSError):
            return self._died(attempt, child)
        except msgspec.MsgspecError as error:
            child.kill()
            child.reap()
            return Ended(failure=Failure(name="WorkerDied", message=f"its process answered nonsense: {error}"))
        with self._lock:
            killed = attempt.handle is None  # its result was first, and its end may take a moment
            attempt.handle = None
            if not killed:
                self._idle.append(child)
        if killed:
            child.reap()
        return Ended(result.result, result.failure, canceled=attempt.context.canceled)

    def _take_idle(self) -> Child | None:
        """A process that waits for a call; those that died meanwhile (killed for want of memory) are passed over."""
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None or child.process.poll() is None:
                return child
            child.reap()

    def _died(self, attempt: Attempt, child: Child) -> Ended:
        code = child.reap()
        log.warning("task_process_died", extra={"action": "task_process_died", "task": attempt.run.name, "code": code})
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        failure = Failure(
            name="WorkerDied",
            message=f"the process of task {attempt.run.name} ended {how} before the task did",
            retryable="WorkerDied" not in attempt.run.options.retry.non_retryable,
        )
        return Ended(failure=failure, canceled=attempt.context.canceled)


def _call_of(attempt: Attempt) -> Call:
    """Raises PayloadUnreadable: here, since why its arguments could not be read does not travel with them."""
    refuse_layers(attempt.run.args, f"what {attempt.run.name} was given")
    fn = attempt.task.fn
    module = fn.__module__
    return Call(
        module=module,
        file=getattr(sys.modules.get(module), "__file__", None) or fn.__code__.co_filename,
        qualname=fn.__qualname__,
        name=attempt.run.name,
        args=attempt.run.args,
        non_retryable=attempt.run.options.retry.non_retryable,
        path=sys.path,
    )
