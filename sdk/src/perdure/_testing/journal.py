"""Which messages are on their way in a test environment, and what they told of runs."""

from __future__ import annotations

import asyncio

from perdure._client.requests import any_run
from perdure._testing.virtual import TaskTimes
from perdure_runtime.adapters.memory.journal import MemoryJournal
from perdure_runtime.adapters.subscriptions import Entry
from perdure_schemas import topics
from perdure_schemas.common import Failure
from perdure_schemas.messages import DispatchTask, RunChanged, RunTask, TaskChanged, WorkflowTaskFailed


class Journal(MemoryJournal):
    """Knows which messages are on their way, and what they told of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0
        """Counts publishes and acknowledgements."""
        self.client_id = ""
        self.news = 0
        """Of these, those of messages that are not the client's own: it asks again and again while it waits."""
        self.moved = asyncio.Event()
        self.stuck: dict[str, RunChanged] = {}
        """By run id; so are the others."""
        self.failures: dict[str, Failure] = {}
        """Of turns."""
        self.delegated: set[str] = set()
        """Tasks that run without a message: somebody outside is to complete them."""
        self.tasks = TaskTimes(self.moved)
        self._open: dict[int, Entry] = {}
        self._current: dict[str, RunChanged] = {}
        """By run id, those that have not ended."""
        self._parents: dict[str, str] = {}
        self._runs: dict[str, set[str]] = {}

    async def publish(self, entries: list[Entry]) -> None:
        await super().publish(entries)
        for entry in entries:
            self._open[entry.id] = entry
            match entry.message.body if entry.message is not None else None:
                case RunChanged() as change:
                    self._note(change)
                case TaskChanged(task_id=task_id, status=status):
                    (self.delegated.add if status == "running" else self.delegated.discard)(task_id)
                case WorkflowTaskFailed(run_id=run_id, failure=failure):
                    self.failures[run_id] = failure
                case _:
                    pass
        self._move(entries)

    def acknowledge(self, entries: list[Entry]) -> None:
        super().acknowledge(entries)
        for entry in entries:
            self._open.pop(entry.id, None)
        self._move(entries)

    def _move(self, entries: list[Entry]) -> None:
        self.moves += 1
        self.news += any(entry.message is None or entry.message.emitter != self.client_id for entry in entries)
        self.moved.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Until a message moves."""
        self.moved.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.moved.wait()
        except TimeoutError:
            pass

    def busy(self) -> bool:
        """Whether a task has something to do, or a message is on its way: all but those that engines keep back, those
        that nobody takes, and async tasks that wait."""
        if self.tasks.busy():
            return True
        waiting = {run.attempt_id for run in self.tasks.running()}
        return any(_moving(entry) and _attempt(entry) not in waiting for entry in self._open.values())

    def _note(self, change: RunChanged) -> None:
        self._parents[change.workflow_id] = change.parent_workflow_id
        self._runs.setdefault(change.workflow_id, set()).add(change.run_id)
        if change.status == "stuck":
            self.stuck[change.run_id] = change
        else:
            self.stuck.pop(change.run_id, None)
        if change.ended_at is None:
            self._current[change.run_id] = change
        else:
            self._current.pop(change.run_id, None)

    def lineage(self, change: RunChanged) -> set[str]:
        """What questions about the run, or a run above it, are known by."""
        keys = {change.run_id, any_run(change.workflow_id)}
        above = change.parent_workflow_id
        while above:
            keys |= {any_run(above), *self._runs.get(above, ())}
            above = self._parents.get(above, "")
        return keys

    def told_of_waits(self, keys: tuple[str, ...]) -> str:
        """What the run asked for waits for, and each below it; of other questions: what any run waits for."""
        runs = list(self._current.values())
        asked = [run for run in runs if not self.lineage(run).isdisjoint(keys)]
        waits = [
            f"run {run.workflow_id!r} of {run.name} waits for {wait}"
            for run in asked or runs
            for wait in self._waits(run)
        ]
        waits += [] if runs else [f"task {self._begun(run.name)}" for run in self.tasks.running()]
        return (
            "; ".join(waits) or "no worker of this environment has what was asked for: pass it to WorkflowEnvironment"
        )

    def lacks(self, task: DispatchTask, keys: tuple[str, ...]) -> bool:
        """Whether nobody takes the task, and the answer to a question known by `keys` depends on it."""
        if not self._nobody_takes(topics.task_run(task.name)):
            return False
        runs = [run for run in self._current.values() if not self.lineage(run).isdisjoint(keys)]
        waiting = "" if task.workflow is None else task.workflow.run_id
        return task.task_id in keys or any(run.run_id == waiting for run in runs or self._current.values())

    def _waits(self, run: RunChanged) -> list[str]:
        if self._nobody_takes(topics.workflow_run(run.name)):
            return ["its workflow, which is not given: pass it to WorkflowEnvironment"]
        return [self._wait(label) for label in run.waits_for.split(", ") if label]

    def _wait(self, label: str) -> str:
        """`label` is as in `RunChanged.waits_for`."""
        kind, _, name = label.partition(" (")[0].partition(" ")
        if kind == "signal":
            return f"signal {name}, which nobody sends: send it before you wait for the run"
        if kind == "task" and self._nobody_takes(topics.task_run(name)):
            remedy = f"env.mock({name.rpartition('.')[2]}, …), or pass it to WorkflowEnvironment"
            return f"task {name}, which is neither given nor mocked: {remedy}"
        if kind == "task" and any(run.name == name for run in self.tasks.running()):
            return f"task {self._begun(name)}"
        return label

    def _begun(self, name: str) -> str:
        return (
            f"{name}, {'whose mock' if name in self.tasks.mocked else 'which'} has begun and waits for what never comes"
        )

    def _nobody_takes(self, topic: str) -> bool:
        """Whether a message waits there, and no worker has asked for any."""
        return any(
            entry.subscription.topic == topic and not entry.subscription.members for entry in self._open.values()
        )


def _attempt(entry: Entry) -> str:
    body = None if entry.message is None else entry.message.body
    return body.attempt_id if isinstance(body, RunTask) else ""


def _moving(entry: Entry) -> bool:
    subscription = entry.subscription
    if not subscription.members:
        return False
    if entry.message is not None and isinstance(entry.message.body, DispatchTask):
        return True  # its time-outs are known only after it was kept back
    kept_back = subscription.topic in (topics.WORKFLOW_ENGINE, topics.TASK_ENGINE)
    return not (kept_back and any(held is entry for m in subscription.members for held in m.held_of(subscription)))
