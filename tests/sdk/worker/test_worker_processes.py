"""Whose attempt a kill hits, when an attempt ends just then."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from perdure._worker import processes
from perdure._worker.child import Result
from perdure._worker.threads import Threads
from tests.sdk.worker.engine import PATIENCE_S

REUSED_SECONDS_MAX = 0.3
"""A process that waits is given away in far less."""


class Child:
    """A process that ends its first call while it is being killed, and whose end then takes a moment."""

    made: queue.SimpleQueue[Child]
    amid_kill: Any

    def __init__(self) -> None:
        self.process = SimpleNamespace(poll=lambda: None)
        self.called = threading.Event()
        self.finishes = threading.Event()
        self.again = threading.Event()
        self.reaped = threading.Event()
        self.killed = False
        Child.made.put(self)

    def call(self, call: Any) -> Result:
        if self.called.is_set():
            self.again.set()
        self.called.set()
        assert self.finishes.wait(PATIENCE_S)
        return Result()

    def kill(self) -> None:
        self.killed = True
        self.finishes.set()
        Child.amid_kill()
        self.again.wait(REUSED_SECONDS_MAX)

    def reap(self) -> int:
        self.reaped.set()
        return -9


def attempt(name: str) -> Any:
    return SimpleNamespace(
        run=SimpleNamespace(name=name), handle=None, context=SimpleNamespace(canceled=False), ending=None
    )


def test_a_kill_that_comes_as_its_attempt_ends_hits_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Child", Child)
    monkeypatch.setattr(processes, "_call_of", lambda attempt: attempt)
    threads, ended = Threads(), {name: threading.Event() for name in ("late", "innocent")}
    tasks = processes.ProcessTasks(threads, lambda attempt, _: ended[attempt.run.name].set())
    late = attempt("late")
    Child.made, Child.amid_kill = queue.SimpleQueue(), lambda: tasks.start(attempt("innocent"))
    tasks.start(late)
    first = Child.made.get(timeout=PATIENCE_S)
    assert first.called.wait(PATIENCE_S)
    late.ending = "timed-out"
    tasks.cancel(late)
    assert ended["late"].wait(PATIENCE_S)
    assert first.reaped.wait(PATIENCE_S), "nobody is given a process that is about to end"
    second = Child.made.get(timeout=PATIENCE_S)
    second.finishes.set()
    assert ended["innocent"].wait(PATIENCE_S)
    assert not first.again.is_set()
    assert not second.killed
    tasks.cancel(late)  # once more, after its end
    assert not second.killed
    threads.stop()
