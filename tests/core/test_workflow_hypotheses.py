"""What must hold of decide, evolve and effects in every state that messages can lead to.

Shown to be able to fail: see the message of the commit that added each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.state import RunState, fold
from perdure_schemas.events import Recorded
from perdure_schemas.messages import CommandReply, RunWorkflowTask, StartReply
from tests.core.workflow_case import NAMESPACE, WORKFLOW_ID, Case
from tests.core.workflow_play import Play, Step, played, steps

PLAYS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_ANSWERS = (RunWorkflowTask, StartReply, CommandReply)


def effects_of(published: Sequence[d.Published]) -> set[tuple[str, str]]:
    """(topic, message id), without turns and answers, which are no effects of events."""
    return {(topic, message.id) for topic, message in published if not isinstance(message.body, _ANSWERS)}


def refolded(case: Case) -> RunState:
    return fold(NAMESPACE, WORKFLOW_ID, case.state.ordinal, case.history)


@PLAYS
@given(steps())
def test_the_state_is_a_fold_of_its_history(made: list[Step]) -> None:
    play = Play()
    for step in made:
        play.do(step)
        assert refolded(play.case) == play.case.state


@PLAYS
@given(steps())
def test_decide_reads_only(made: list[Step]) -> None:
    play = Play()
    for step in made:
        play.do(step)
        if play.sent:
            before = copy.deepcopy(play.case.state)
            play.case.decide(play.sent[-1])
            assert play.case.state == before


@PLAYS
@given(steps(), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=10))
def test_a_message_delivered_again_changes_nothing(made: list[Step], again: list[tuple[int, int]]) -> None:
    """However much later it comes again, whatever happened since: the history is as if it had come once."""
    once = played(made)
    twice = Play()
    for index, message in enumerate(once.sent):
        twice.case.now = message.at
        twice.deliver(message)
        for _, earlier in [pair for pair in again if pair[0] == index]:
            if earlier <= index:
                reaction = twice.deliver(once.sent[earlier])
                assert reaction.recorded == []
    assert twice.case.history == committed_one_by_one(once).history


def committed_one_by_one(play: Play) -> Case:
    """The same messages, each committed at once."""
    case = Case()
    for message in play.sent:
        case.now = message.at
        case.deliver(message)
    return case


@PLAYS
@given(steps())
def test_what_a_commit_published_is_published_again(made: list[Step]) -> None:
    """At once, by the state in memory and by one loaded: the same effects."""
    play = Play()
    for step in made:
        reaction = play.do(step)
        if reaction is None or not isinstance(reaction.decision, d.Record | d.Rewind):
            continue
        case, message = play.case, play.sent[-1]
        if case.committed < case.state.seq or (isinstance(reaction.decision, d.Record) and reaction.decision.again):
            continue
        caused = [recorded for recorded in case.history if recorded.cause == message.id]
        first = effects_of(effects(case.state, caused))
        assert effects_of(effects(refolded(case), _loaded(caused))) == first
        assert effects_of(case.deliver(message).published) == first


def _loaded(events: list[Recorded]) -> list[Recorded]:
    """Equal, but other objects, as from a store."""
    return copy.deepcopy(events)
