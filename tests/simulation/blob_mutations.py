"""Bugs in what is done with values that are stored beside the messages."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from perdure_core import blobs as whose
from perdure_runtime import workflow_reads
from perdure_runtime.adapters.memory.records import MemoryBlobs
from perdure_runtime.blobs import Custody
from perdure_runtime.workflow_driver import Rounds
from tests.simulation.mutations import mutation, patched_in


@mutation
def what_is_recorded_is_not_copied(stack: ExitStack) -> None:
    async def not_kept(self: Any, recorded: Any) -> None:
        pass

    patched_in(stack, Custody, "keep", not_kept)


@mutation
def what_is_recorded_is_copied_after_the_acknowledgement(stack: ExitStack) -> None:
    keep, play = Custody.keep, Rounds._round

    async def later(self: Any, recorded: Any) -> None:
        self.due = [*getattr(self, "due", []), *recorded]

    async def play_and_keep(self: Any, actors: Any, this: Any) -> None:
        await play(self, actors, this)
        due, self._custody.due = getattr(self._custody, "due", []), []
        await keep(self._custody, due)

    patched_in(stack, Custody, "keep", later)
    patched_in(stack, Rounds, "_round", play_and_keep)


@mutation
def what_was_recorded_before_is_not_copied_again(stack: ExitStack) -> None:
    patched_in(stack, workflow_reads, "referred", lambda _: [])


@mutation
def what_is_lent_is_published_before_it_is_copied(stack: ExitStack) -> None:
    lend, play = Custody.lend, Rounds._round

    async def later(self: Any, published: Any) -> Any:
        self.due = [*getattr(self, "due", []), *published]
        return [(topic, whose.lent(message)[0]) for topic, message in published]

    async def play_and_copy(self: Any, actors: Any, this: Any) -> None:
        await play(self, actors, this)
        due, self._custody.due = getattr(self._custody, "due", []), []
        await lend(self._custody, due)

    patched_in(stack, Custody, "lend", later)
    patched_in(stack, Rounds, "_round", play_and_copy)


@mutation
def another_run_is_sent_what_is_the_senders_own(stack: ExitStack) -> None:
    patched_in(stack, whose, "lends", lambda message: False)


@mutation
def a_history_refers_to_what_is_in_transit(stack: ExitStack) -> None:
    patched_in(stack, whose, "owned", lambda value, *_: value)


@mutation
def a_purge_leaves_blobs(stack: ExitStack) -> None:
    async def nothing(self: Any, namespace: str, workflow_id: str, run_id: str) -> None:
        pass

    patched_in(stack, MemoryBlobs, "purge", nothing)
