"""Every checker is shown to see its bug: the real code with one rule broken does not get through."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import tests.simulation.blob_mutations  # noqa: F401 - adds its own
import tests.simulation.task_mutations  # noqa: F401 - adds its own
from tests.simulation.faults import EVERYTHING, NO_FAULTS, Faults
from tests.simulation.mutations import MUTATIONS, applied
from tests.simulation.offloaded import EVERYTHING_ABOVE
from tests.simulation.schedule import Report, simulate

ENGINES_DIE = Faults(crash=0.02, pause=0.01, target="workflow-engine")
ENGINES_SLEEP = Faults(crash=0.0, pause=0.02, target="workflow-engine")
ENGINES_LOSE_SESSIONS = Faults(
    crash=0.04, pause=0.04, pause_max=0.5, target="workflow-engine", any_replica=0.0, duplicate=0.1
)
SUPERVISORS_DIE = Faults(crash=0.05, pause=0.05, target="task-engine", unknown_commit=0.2, until=20.0)
WORKERS_DIE = Faults(crash=0.06, pause=0.0, target="worker")
ACKS_ARE_LOST = Faults(lost_ack=0.4)


@dataclass(frozen=True, slots=True)
class Case:
    """Schedules in which the bug does harm, and what sees it. The rarest were found once: they begin near there."""

    workloads: tuple[str, ...]
    seen: tuple[str, ...]
    faults: Faults = EVERYTHING
    first: int = 0
    seeds: int = 300
    above: int | None = None
    """Bytes above which values are stored beside the messages."""


UNFINISHED = ("unfinished", "terminal", "lost", "left over")

CASES = {
    "publish-before-commit": Case(("hello", "sequence"), ("phantom",)),
    "attempts-are-published-twice": Case(("hello", "sequence"), ("double",), NO_FAULTS),
    "signals-are-told-and-dropped": Case(("signals",), ("lost",), NO_FAULTS),
    "no-reemission": Case(("hello", "sequence"), UNFINISHED),
    "no-compare-and-set": Case(("hello", "terminate"), ("chain", "terminal", "replay", "error"), EVERYTHING, 5),
    "acknowledge-before-effects": Case(("sequence", "hello"), UNFINISHED, ENGINES_DIE),
    "tombstone-before-recorded": Case(("last-wishes", "hello"), UNFINISHED, ENGINES_DIE),
    "unknown-taken-as-applied": Case(("hello", "sequence"), ("phantom", *UNFINISHED)),
    "stale-view-is-fresh": Case(("hello", "pause"), UNFINISHED),
    "settled-commands-are-published-again": Case(("resume", "sequence"), ("late RunTask",), ACKS_ARE_LOST),
    "recorded-is-forgotten-soon": Case(("signals",), ("twice",), ACKS_ARE_LOST),
    "attached-is-acknowledged": Case(("fan-out", "hello"), UNFINISHED, ENGINES_LOSE_SESSIONS, 60, 1_500),
    "held-for-ever": Case(("children",), UNFINISHED, ENGINES_SLEEP),
    "plain-sequence-numbers": Case(("by-chance", "pause"), ("wrong", "replay", "stuck")),
    "stale-turn-accepted": Case(("hello", "by-chance"), ("stuck", "twice", "replay")),
    "later-base-suffices": Case(("branches", "in-order-of-arrival"), ("stuck", "twice", "replay")),
    "children-that-wait-are-forgotten": Case(("reset-parent",), UNFINISHED, NO_FAULTS),
    "rewind-is-no-barrier": Case(("resume-changed", "resume-twice"), ("wrong", "stuck", *UNFINISHED)),
    "ahead-is-discarded-and-turns-are-asked-once": Case(("children", "resume-child"), UNFINISHED),
    "base-is-the-end": Case(("edit", "resume", "in-order-of-arrival"), ("replay", "unfinished", "stuck", "wrong")),
    "nonce-ignored": Case(("by-chance",), ("wrong", "replay", "stuck")),
    "start-acknowledged-at-once": Case(("hello",), ("unfinished", "lost"), ENGINES_DIE),
    "an-ended-run-gives-up-its-id": Case(("impatience",), ("wrong",), NO_FAULTS),
    "blind-commits-see-no-traces": Case(("reappearance",), ("late RunTask", "terminal", "chain")),
    "unborn-discarded": Case(("signals",), ("unfinished", "lost")),
    "task-engine-told-first": Case(("fickleness",), ("unfinished", "lost"), WORKERS_DIE, 0, 600),
    "history-is-not-asked": Case(("sequence",), ("left over", "late RunTask")),
    "timer-after-record": Case(("tasks", "retries"), ("unfinished", "left over"), SUPERVISORS_DIE),
    "timer-without-record-is-ignored": Case(("retries",), ("unfinished", "left over"), SUPERVISORS_DIE, 40, 1_500),
    "repeated-transition-is-stale": Case(("tasks", "resume"), ("unfinished", "left over"), SUPERVISORS_DIE),
    "failure-needs-a-record": Case(("edit", "children"), UNFINISHED),
    "last-outcome-counts": Case(("sequence", "pause"), ("twice",)),
    "rewind-without-generation": Case(("resume-changed",), ("wrong", *UNFINISHED)),
    "old-failures-count": Case(("resume-stray",), ("wrong",)),
    "random-ids": Case(("resume-child", "last-wishes"), ("wrong", "left over")),
    "last-turn-need-not-have-seen-all": Case(("relay",), UNFINISHED),
    **{
        name: Case(workloads, ("blobs", *more), faults, above=EVERYTHING_ABOVE)
        for name, workloads, more, faults in (
            ("what-is-recorded-is-not-copied", ("hello", "relay"), (), NO_FAULTS),
            ("what-is-recorded-is-copied-after-the-acknowledgement", ("hello", "relay"), (), ENGINES_DIE),
            ("what-was-recorded-before-is-not-copied-again", ("sequence", "relay"), (), EVERYTHING),
            ("what-is-lent-is-published-before-it-is-copied", ("children", "relay"), (), NO_FAULTS),
            ("another-run-is-sent-what-is-the-senders-own", ("children", "relay", "last-wishes"), (), NO_FAULTS),
            ("a-history-refers-to-what-is-in-transit", ("hello", "signals"), (), NO_FAULTS),
            ("a-purge-leaves-blobs", ("hello", "relay"), ("left over",), NO_FAULTS),
        )
    },
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong here is meant to."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_every_mutation_has_its_case() -> None:
    assert CASES.keys() == MUTATIONS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_rule_is_seen(name: str) -> None:
    case = CASES[name]
    with applied(name):
        report = _first_violation(case)
    assert report is not None, f"{case.seeds} schedules of {case.workloads} do not show {name}"
    assert any(violation.startswith(case.seen) for violation in report.violations), (
        f"seed {report.seed} {report.workload}: {report.violations}"
    )


def test_the_bugs_are_gone_afterwards() -> None:
    """Patches end with their block: what follows runs the product again."""
    report = simulate(1, NO_FAULTS, "sequence")
    assert not report.violations


def _first_violation(case: Case) -> Report | None:
    for seed in range(case.first, case.first + case.seeds):
        workload = case.workloads[seed % len(case.workloads)]
        report = simulate(seed, case.faults, workload, backstop=False, above=case.above)
        if report.violations:
            return report
    return None
