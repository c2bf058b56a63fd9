"""The nemesis is its seed."""

from __future__ import annotations

from tests.chaos.nemesis import Plan


def test_a_seed_is_a_series_of_faults_and_meets_every_kind() -> None:
    members = [f"{role}-{number}" for role in ("workflow_engine", "worker") for number in range(2)]
    first, second = Plan(1, members), Plan(1, members)
    series = [first.next() for _ in range(300)]
    assert series == [second.next() for _ in range(300)]
    labels = {fault.label for faults, _ in series for fault in faults}
    assert {"kill pulsar", "freeze cassandra", "roll worker", "cut from pulsar and cassandra workflow_engine"} <= labels
    assert any(len(faults) == 2 for faults, _ in series)
