"""What must hold of decide, evolve and effects in every state that messages can lead to.

Shown to be able to fail: see the message of the commit that added each.
"""

from __future__ import annotations

import copy
import os
import typing
from collections.abc import Sequence
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.requests import run_changed, workflow_task
from perdure_core.workflow_engine.state import RunState, fold
from perdure_schemas.events import Recorded, Rewound, RunEnded
from perdure_schemas.messages import (
    ChildOutcome,
    CommandReply,
    Message,
    RunTask,
    RunWorkflowTask,
    StartReply,
    TaskOutcome,
    TimerFired,
    UpdateRun,
)
from tests.core.workflow_case import NAMESPACE, WORKFLOW_ID, Case, Reaction
from tests.core.workflow_play import STEPS, Play, Step, played, steps
from tests.schemas.strategies import values

EXAMPLES = int(os.environ.get("PERDURE_EXAMPLES", "100"))
"""Of each hypothesis; more of them find what is rarer."""
PLAYS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=set(Phase) - {Phase.explain},
)
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
        message = play.prepared(step)
        if message is not None:
            before = copy.deepcopy(play.case.state)
            play.case.decide(message)
            assert play.case.state == before
            play.deliver(message)


@PLAYS
@given(steps(), st.lists(st.integers(0, 99), min_size=1, max_size=40))
def test_a_message_delivered_again_changes_nothing(made: list[Step], again: list[int]) -> None:
    """However much later, whatever happened since: once recorded, a message records nothing any more."""
    once = played(made)
    twice = Play()
    recorded: list[Message] = []
    for index, message in enumerate(once.sent):
        twice.case.now = message.at
        reaction = twice.deliver(message)
        if isinstance(reaction.decision, d.Purge):
            recorded.clear()  # with its run: retention is longer than a broker keeps messages (rule 20)
        if reaction.recorded:
            recorded.append(message)
        if recorded:
            repeated = recorded[again[index % len(again)] % len(recorded)]
            assert twice.deliver(repeated).recorded == []
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


@PLAYS
@given(steps(), st.data())
def test_no_message_is_too_strange(made: list[Step], data: st.DataObject) -> None:
    """Any message of the right types, in any state: decided, and what it records folds and publishes."""
    play = played(made)
    name = data.draw(st.sampled_from(sorted(STEPS)))
    body = STEPS[name](play, data.draw(st.tuples(*[st.integers(0, 59)] * 3)))
    if body is None:
        return
    hints = typing.get_type_hints(type(body))
    for field in data.draw(st.lists(st.sampled_from(sorted(hints)), min_size=1, max_size=3)):
        body = replace(body, **{field: data.draw(strange(hints[field]))})
    play.case.send(body, id=data.draw(st.sampled_from(["strange", *(message.id for message in play.sent)])))
    assert refolded(play.case) == play.case.state
    case = play.case
    if case.state.started is not None:
        effects(case.state, case.history)
        workflow_task(case.state, case.committed)
        run_changed(case.state, 1, case.history)


def strange(hint: object) -> st.SearchStrategy[object]:
    """Any value of the type, small numbers often: they are those that nearly fit."""
    return st.one_of([st.integers(-3, 9)] * 3 + [values(int)]) if hint is int else values(hint)


SOLITARY = ("outcome", "signal", "update", "timer")
"""What different senders do at the same time; none of it ends a run."""


@PLAYS
@given(
    steps(),
    st.lists(st.tuples(st.sampled_from(SOLITARY), st.tuples(*[st.integers(0, 59)] * 3)), max_size=5),
    st.randoms(),
)
def test_messages_of_different_senders_may_come_in_any_order(
    made: list[Step], together: list[Step], random: Random
) -> None:
    """The same events are recorded, and the state after them is the same but for their order."""
    play = played(made)
    messages = distinct([message for message in map(play.prepared, together) if message is not None])
    shuffled = messages[:]
    random.shuffle(shuffled)
    one, other = copy.deepcopy(play.case), copy.deepcopy(play.case)
    for case, order in ((one, messages), (other, shuffled)):
        while order:
            left = [m for m in order if isinstance(case.deliver(m).decision, d.Later)]
            if len(left) == len(order):
                break
            order = left
    assert outline(one) == outline(other)


def distinct(messages: list[Message]) -> list[Message]:
    """One outcome per command, one update per id: of two the first counts. No timer that ends a run."""
    kept: dict[object, Message] = {}
    for message in messages:
        body = message.body
        match body:
            case TimerFired() if body.kind != "command":
                pass
            case TaskOutcome() | ChildOutcome() | TimerFired():
                kept.setdefault(("outcome", body.command_id), message)
            case UpdateRun():
                kept.setdefault(("update", body.update_id), message)
            case _:
                kept[message.id] = message
    return list(kept.values())


def outline(case: Case) -> object:
    """A state without the order of its last events."""
    state = case.state
    return (
        sorted((recorded.cause, type(recorded.event).__name__) for recorded in case.history),
        {id: command.settled for id, command in state.commands.items()},
        {id: (orphan.settled is not None, orphan.failed) for id, orphan in state.orphans.items()},
        state.senders,
        state.updates,
        state.needs_turn(),
        state.status,
    )


@PLAYS
@given(steps(), st.lists(st.integers(0, 99), min_size=1, max_size=40))
def test_what_has_its_outcome_is_never_dispatched(made: list[Step], repeated: list[int]) -> None:
    """Protocol rule 4: neither by the commit that would have, nor by its repetition, ever after."""
    play = Play()
    for index, step in enumerate(made):
        reaction = play.do(step)
        if reaction is None:
            continue
        assert dispatched(play.case, reaction) == []
        again = play.case.deliver(play.sent[repeated[index % len(repeated)] % len(play.sent)])
        assert dispatched(play.case, again) == []


def dispatched(case: Case, reaction: Reaction) -> list[str]:
    """Tasks of the current run that were dispatched although they have an outcome, or were to be done anew."""
    return [
        run.task_id
        for run in reaction.sent(RunTask)
        if run.workflow is not None
        and run.workflow.run_id == case.state.run_id
        and case.state.under_way(run.task_id) is None
    ]


@PLAYS
@given(steps())
def test_a_run_ends_once_per_generation(made: list[Step]) -> None:
    """A failed run may yet be terminated; nothing else follows an end but a rewind."""
    play = played(made)
    ends: list[str] = []
    for recorded in play.case.history:
        if isinstance(recorded.event, RunEnded):
            assert ends in ([], ["failed"])
            ends.append(recorded.event.status)
        elif isinstance(recorded.event, Rewound):
            ends = []
