"""Schedules in which every value is stored beside the messages, and what must hold of the references then.

The threshold is a parameter: with values of one byte above it, what the other workloads send costs no more than ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from perdure_core.blobs import referred
from perdure_core.payloads import replaced
from perdure_runtime.ports import Commit
from perdure_schemas.blobs import Blob, blob_of, stored
from perdure_schemas.common import Payload
from perdure_schemas.messages import ChildOutcome, Message, SendSignal, StartWorkflow

if TYPE_CHECKING:
    from tests.simulation.world import World

EVERYTHING_ABOVE = 0
"""Bytes: all values but none at all."""

T = TypeVar("T")
_BETWEEN_RUNS = (StartWorkflow, ChildOutcome, SendSignal)


class Watch:
    """Looks on at what is put, referred to and removed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._data: dict[str, bytes] = {}
        """All that was ever put, by id."""
        self._purged: set[str] = set()
        """Ids of blobs that went with their run."""

    def put(self, blob: Blob, data: bytes) -> None:
        known = self._data.setdefault(blob.id, data)
        if known != data:
            self._tell(f"blobs: {blob.id[:8]} was put again, and was another")

    def purged(self, workflow_id: str, run_id: str) -> None:
        self._purged.update(self._of_run(workflow_id, run_id))

    def removed(self, blob: Blob) -> None:
        """Of a run's own: that run was purged before it was copied."""
        if blob.run_id:
            self._purged.add(blob.id)

    def committed(self, commit: Commit) -> None:
        """A history refers to its own run's, a row that is not born to what is in transit."""
        workflow_id, run_id = commit.key.workflow_id, commit.head.run_id
        owner = (workflow_id, run_id) if run_id else ("", "")
        for blob in referred(list(commit.events)):
            if (blob.workflow_id, blob.run_id) != owner:
                self._tell(
                    f"blobs: run {workflow_id} has recorded a reference to one of {blob.workflow_id or 'nobody'}"
                )
            self._look(blob, f"what run {workflow_id} has recorded")

    def published(self, process: str, message: Message) -> None:
        """What an engine sends to another run refers to what is in transit; and everything refers to something."""
        for blob in referred(message.body):
            if process.startswith("workflow-engine") and isinstance(message.body, _BETWEEN_RUNS) and blob.run_id:
                self._tell(f"blobs: a {type(message.body).__name__} refers to one of {blob.workflow_id}")
            self._look(blob, f"a {type(message.body).__name__} of {process}")

    def unkept(self) -> Iterator[str]:
        """When nothing is under way: what a history refers to that is not its run's own."""
        for run in self._world.ledger.runs.values():
            if not run.run_id or (run.workflow_id, run.run_id) in self._world.ledger.gone:
                continue
            kept = self._of_run(run.workflow_id, run.run_id)
            for blob in referred(run.events):
                if blob.id not in kept:
                    yield f"blobs: run {run.workflow_id} has not got {blob.id}, to which its history refers"

    def left_over(self) -> Iterator[str]:
        """When every run is purged."""
        for (_, workflow_id, _), found in self._world.blobs._of_runs.items():
            yield f"left over: {len(found)} blobs of {workflow_id}"

    def plain(self, value: T) -> T:
        """With every value as it was before it was stored."""

        def whole(payload: Payload) -> Payload:
            blob = blob_of(payload)
            return payload if blob is None else stored(payload, self._data[blob.id])

        return replaced(value, whole)

    def _look(self, blob: Blob, what: str) -> None:
        """The id of a blob stays the same when a run takes it over: then it is gone where it was."""
        blobs, id = self._world.blobs, blob.id
        in_transit = any(known == id for _, known in blobs._transit)
        if not in_transit and id not in self._purged and not any(id in own for own in blobs._of_runs.values()):
            self._tell(f"blobs: {what} refers to {id}, which is nowhere")

    def _of_run(self, workflow_id: str, run_id: str) -> set[str]:
        return {
            id
            for (_, *owner), found in self._world.blobs._of_runs.items()
            if owner == [workflow_id, run_id]
            for id in found
        }

    def _tell(self, violation: str) -> None:
        self._world.ledger.violations.append(violation)
