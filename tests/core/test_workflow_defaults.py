"""Defaults of a workflow: what a start leaves to them, and that they change no run that has begun."""

from __future__ import annotations

import pytest

from perdure_core.workflow_engine import decisions as d
from perdure_schemas.common import NULL, RETENTION_MS, Completion, ContinueAsNew, RunOptions
from perdure_schemas.events import Started
from perdure_schemas.messages import ResumeRun, ScheduleTimer, SendSignal, StartWorkflow, TimerFired
from tests.core.workflow_case import WORKFLOW_ID, Case, Reaction, failing, start

HOUR = 3_600_000
DECLARED = d.RunDefaults(run_timeout_ms=HOUR, retention_ms=2 * HOUR)


def declared(defaults: d.RunDefaults = DECLARED) -> Case:
    case = Case()
    case.defaults = defaults
    return case


def begun(case: Case) -> Started:
    assert case.state.started is not None
    return case.state.started


def timers(reaction: Reaction) -> dict[str, int]:
    """Due times by kind, since the epoch."""
    sent = reaction.sent(ScheduleTimer)
    return {each.fires.kind: each.due_at for each in sent if isinstance(each.fires, TimerFired)}


OWN = RunOptions(run_timeout_ms=5, retention_ms=7, retention_given=True)


@pytest.mark.parametrize(
    ("given", "defaults", "holds"),
    [
        (RunOptions(), DECLARED, (HOUR, 2 * HOUR)),
        (RunOptions(), d.RunDefaults(), (None, RETENTION_MS)),
        (RunOptions(), d.RunDefaults(run_timeout_ms=HOUR), (HOUR, RETENTION_MS)),
        (RunOptions(), d.RunDefaults(retention_ms=HOUR), (None, HOUR)),
        (OWN, DECLARED, (5, 7)),
        (RunOptions(run_timeout_ms=5), DECLARED, (5, 2 * HOUR)),
        (RunOptions(retention_given=True), DECLARED, (HOUR, RETENTION_MS)),
        (RunOptions(retention_ms=7), DECLARED, (HOUR, 7)),
    ],
    ids=["nothing", "undeclared", "time-out", "retention", "own", "own time-out", "own 7 days", "older sender"],
)
def test_a_run_has_what_its_start_gives_then_what_is_declared(
    given: RunOptions, defaults: d.RunDefaults, holds: tuple[int | None, int]
) -> None:
    case = declared(defaults)
    case.start(options=given)
    options = begun(case).options
    assert (options.run_timeout_ms, options.retention_ms) == holds


def test_they_are_obeyed() -> None:
    case = declared()
    assert timers(case.start())["run-timeout"] == case.state.at + HOUR
    ended = case.turn(completion=failing())
    assert timers(ended)["retention"] == case.state.ended_at + 2 * HOUR


def test_other_options_stay_as_they_were_given() -> None:
    case = declared()
    case.start(options=RunOptions(tags=["shop"]))
    assert begun(case).options == RunOptions(tags=["shop"], run_timeout_ms=HOUR, retention_ms=2 * HOUR)


def test_a_run_that_has_begun_keeps_its_own() -> None:
    case = declared()
    case.start()
    case.defaults = d.RunDefaults(run_timeout_ms=9 * HOUR, retention_ms=9 * HOUR)
    assert isinstance(case.send(start()).decision, d.Discard), "the same start again"
    first = case.turn(completion=failing())
    assert timers(first)["retention"] == case.state.ended_at + 2 * HOUR
    assert timers(case.send(ResumeRun(workflow_id=WORKFLOW_ID)))["run-timeout"] == case.state.at + HOUR


def test_a_run_that_takes_the_place_of_another_has_them() -> None:
    case = declared()
    case.start(options=OWN)
    case.send(start(run_id="r2", conflict_policy="terminate-existing"))
    assert begun(case).options.retention_ms == 2 * HOUR


def continued(case: Case) -> StartWorkflow:
    next_run = ContinueAsNew(name="order", args=NULL)
    ended = case.turn(completion=Completion(status="continued-as-new", next_run=next_run))
    (following,) = ended.sent(StartWorkflow)
    return following


def test_the_next_run_of_a_chain_gets_those_of_its_own_time() -> None:
    case = declared()
    case.start(options=RunOptions(tags=["shop"]))
    following = continued(case)
    assert following.options == RunOptions(tags=["shop"])
    case.defaults = d.RunDefaults(retention_ms=9 * HOUR)
    case.send(following)
    assert begun(case).options == RunOptions(tags=["shop"], retention_ms=9 * HOUR)


@pytest.mark.parametrize("own", [OWN, RunOptions(run_timeout_ms=HOUR, retention_ms=2 * HOUR, retention_given=True)])
def test_what_the_first_start_of_a_chain_gave_holds_for_all(own: RunOptions) -> None:
    """Also if it is just what is declared."""
    case = declared()
    case.start(options=own)
    following = continued(case)
    case.defaults = d.RunDefaults(run_timeout_ms=9 * HOUR, retention_ms=9 * HOUR)
    case.send(following)
    assert begun(case).options == own


def test_a_chain_that_an_older_engine_began_keeps_its_own() -> None:
    case = Case()
    case.start(options=RunOptions(run_timeout_ms=5, retention_ms=7))
    case.defaults = DECLARED
    following = continued(case)
    case.send(following)
    assert (begun(case).options.run_timeout_ms, begun(case).options.retention_ms) == (5, 7)


def test_a_parent_leaves_them_to_its_child() -> None:
    case = declared()
    case.start()
    own = case.command("1", "child", child_id="own", run=OWN)
    reaction = case.turn(case.command("0", "child", child_id="kid", run=RunOptions()), own)
    assert [sent.options for sent in reaction.sent(StartWorkflow)] == [RunOptions(), OWN]


def test_a_start_that_was_overtaken_has_them() -> None:
    case = declared()
    case.send(SendSignal(workflow_id=WORKFLOW_ID, channel="c", payload=NULL, sender="a", number=1))
    case.start()
    assert begun(case).options.run_timeout_ms == HOUR
