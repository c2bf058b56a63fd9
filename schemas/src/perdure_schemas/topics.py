"""Names of topics, without tenant and namespace, which the adapter puts in front."""

from __future__ import annotations

WORKFLOW_ENGINE = "workflow-engine"
TASK_ENGINE = "task-engine"
TIMERS = "timers"
WORKER_HELLO = "worker-hello"
WORKFLOW_EVENTS = "workflow-events"
TASK_EVENTS = "task-events"


def workflow_run(name: str, build: str | None = None) -> str:
    """Decision turns of one workflow; of pinned runs, per build."""
    return f"workflow-run.{name}" if build is None else f"workflow-run.{name}.{build}"


def task_run(name: str, build: str | None = None) -> str:
    """Attempts of one task."""
    return f"task-run.{name}" if build is None else f"task-run.{name}.{build}"


def inbox(owner: str) -> str:
    """What is meant for one instance of a worker, client or API."""
    return f"inbox.{owner}"


def dead_letters(topic: str) -> str:
    return f"dlq.{topic}"
