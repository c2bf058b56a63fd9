"""Runs and tasks as lists show them, in dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from perdure_runtime.adapters import cursors
from perdure_runtime.adapters.labels import by_build, matches
from perdure_runtime.adapters.retention import FORGOTTEN_KEPT_MS
from perdure_runtime.ports import BuildCounts, Clock, RunFilter, RunPage
from perdure_schemas.messages import RunChanged, TaskChanged


class MemoryReadModel:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._runs: dict[tuple[str, str, str], tuple[int, RunChanged]] = {}
        """By namespace, workflow id and run id; with a number in order of first appearance."""
        self._tasks: dict[tuple[str, str], TaskChanged] = {}
        self._last_number = 0
        self._forgotten: dict[tuple[str, str, str], int] = {}
        """Purged runs -> when that is forgotten too, oldest first."""

    async def apply(self, changes: Sequence[tuple[str, RunChanged | TaskChanged]]) -> None:
        for namespace, change in changes:
            if isinstance(change, RunChanged):
                self._apply_run(namespace, change)
            else:
                self._apply_task(namespace, change)

    def _apply_task(self, namespace: str, change: TaskChanged) -> None:
        ref = change.workflow
        if ref is not None and self._is_forgotten((namespace, ref.workflow_id, ref.run_id)):
            return
        task = self._tasks.get((namespace, change.task_id))
        if task is None or task.version < change.version:
            self._tasks[namespace, change.task_id] = change

    def _apply_run(self, namespace: str, change: RunChanged) -> None:
        key = (namespace, change.workflow_id, change.run_id)
        if self._is_forgotten(key):
            return
        known = self._runs.get(key)
        if known is not None and known[1].version >= change.version:
            return
        if known is None:
            self._last_number += 1
        number = self._last_number if known is None else known[0]
        self._runs[key] = (number, msgspec.structs.replace(change, events=[]))

    async def forget(self, namespace: str, workflow_id: str, run_id: str) -> None:
        key = (namespace, workflow_id, run_id)
        self._runs.pop(key, None)
        self._forgotten.pop(key, None)
        self._forgotten[key] = self._clock.now() + FORGOTTEN_KEPT_MS
        while not self._is_forgotten(oldest := next(iter(self._forgotten))):
            del self._forgotten[oldest]
        for task in await self.list_tasks(namespace, workflow_id, run_id):
            del self._tasks[namespace, task.task_id]

    def _is_forgotten(self, key: tuple[str, str, str]) -> bool:
        return key in self._forgotten and self._forgotten[key] > self._clock.now()

    async def list_runs(self, namespace: str, where: RunFilter, limit: int, cursor: str | None) -> RunPage:
        found = sorted(
            (
                (run.started_at, number, run)
                for (space, _, _), (number, run) in self._runs.items()
                if space == namespace and matches(run, where)
            ),
            key=lambda row: row[:2],
            reverse=True,
        )
        if cursor is not None:
            after = cursors.read(cursor)
            found = [row for row in found if row[:2] < after]
        page = found[:limit]
        more = len(found) > limit
        return RunPage(runs=[row[2] for row in page], cursor=cursors.write(*page[-1][:2]) if more else None)

    async def get_run(self, namespace: str, workflow_id: str, run_id: str | None) -> RunChanged | None:
        if run_id is not None:
            found = self._runs.get((namespace, workflow_id, run_id))
            return None if found is None else found[1]
        page = await self.list_runs(namespace, RunFilter(workflow_id=workflow_id), 1, None)
        return page.runs[0] if page.runs else None

    async def list_tasks(self, namespace: str, workflow_id: str, run_id: str) -> Sequence[TaskChanged]:
        return [
            task
            for (space, _), task in self._tasks.items()
            if space == namespace
            and task.workflow is not None
            and (task.workflow.workflow_id, task.workflow.run_id) == (workflow_id, run_id)
        ]

    async def counts(self, namespace: str) -> dict[str, dict[str, int]]:
        totals: dict[str, Counter[str]] = {}
        for (space, _, _), (_, run) in self._runs.items():
            if space == namespace:
                totals.setdefault(run.name, Counter())[run.status] += 1
        return {name: dict(total) for name, total in totals.items()}

    async def builds(self, namespace: str) -> Sequence[BuildCounts]:
        runs = [run for (space, _, _), (_, run) in self._runs.items() if space == namespace]
        return by_build(Counter((run.name, run.build or "", run.status) for run in runs))
