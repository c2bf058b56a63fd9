"""The checker of the chain of commits lets it begin anew where it may, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from perdure_runtime.ports import Commit, Head, RunKey
from perdure_schemas.events import CancelRequested, Recorded
from tests.simulation.checks import one_chain
from tests.simulation.ledger import Ledger
from tests.simulation.world import World

KEY = RunKey("ns", "w")


def commit(version: int, run_id: str, runs: int, *, seq: int = 1, lapses_ms: int | None = None) -> Commit:
    event = Recorded(seq=seq, at=0, cause=f"{run_id}{seq}", event=CancelRequested(reason="", actor=""))
    head = Head(version=version, run_id=run_id, seq=seq, runs=runs)
    return Commit(
        key=KEY, expected_version=version - 1, expected_run="", head=head, events=[event], commit_id="c",
        unborn_ttl_ms=lapses_ms,
    )  # fmt: skip


def violations(*steps: Commit | str) -> list[str]:
    """Of commits and purges (run ids), a second apart."""
    ledger = Ledger()
    for number, step in enumerate(steps):
        if isinstance(step, str):
            ledger.purged(KEY, step)
        else:
            ledger.committed("engine", step, number * 1000)
    world: Any = SimpleNamespace(ledger=ledger)
    return list(one_chain(cast(World, world)))


def test_a_chain_that_begins_anew_without_a_reason_is_told() -> None:
    assert violations(commit(1, "a", 1), commit(2, "a", 1, seq=2)) == []
    assert violations(commit(1, "a", 1), commit(1, "a", 1, seq=2)) == ["chain: version 1 of w, expected 2"]
    assert violations(commit(1, "a", 1), commit(3, "a", 1, seq=2)) == ["chain: version 3 of w, expected 2"]


def test_it_may_begin_anew_after_the_purge_of_the_current_run() -> None:
    assert violations(commit(1, "a", 1), "a", commit(1, "b", 1)) == []
    both = commit(1, "a", 1), commit(2, "b", 2)
    assert violations(*both, "b", commit(1, "c", 3)) == []
    assert violations(*both, "b", commit(1, "c", 1)) == ["chain: 1 runs of w, expected 3"]
    assert violations(*both, "b", "a", commit(1, "c", 1)) == []
    assert violations(*both, "a", commit(1, "c", 3)) == ["chain: version 1 of w, expected 3"]


def test_it_may_begin_anew_when_what_was_not_born_has_lapsed() -> None:
    assert violations(commit(1, "", 0, lapses_ms=900), commit(1, "", 0, lapses_ms=900)) == []
    late = violations(commit(1, "", 0, lapses_ms=1_100), commit(1, "", 0, seq=2, lapses_ms=900))
    assert late == ["chain: version 1 of w, expected 2"]
