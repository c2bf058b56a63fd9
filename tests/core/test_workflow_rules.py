"""The rules of the engine protocol that the workflow engine's core keeps, each by a case that breaks without it.

Not here, because the core has no part in them:
2, 7, 9, 15 (commit, publish, acknowledge in this order; a view loaded in this handling; holding at most a second;
asking for the turn again after an early flush) belong to the driver and are tested by the simulation;
14, the half that hands a message back with a delay, likewise;
17 is the worker's; 20, the half that keeps tombstones, is the store's (contract suites);
21 to 27 are the task engine's and the worker's.
"""

from __future__ import annotations

import copy
from typing import get_args

import pytest
from msgspec.structs import replace

from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine.dispatch import RETOLD_BYTES_MAX
from perdure_core.workflow_engine.requests import workflow_task
from perdure_core.workflow_engine.start import START_AGE_MAX_MS
from perdure_core.workflow_engine.state import fold
from perdure_core.workflow_engine.turns import AHEAD_AGE_MAX_MS
from perdure_schemas.common import Outcome, Parent, Payload
from perdure_schemas.events import CommandSettled, RunEnded, TurnCommitted
from perdure_schemas.messages import (
    ChildOutcome,
    CommandReply,
    ControlAction,
    DispatchTask,
    RunTask,
    RunWorkflowTask,
    SendSignal,
    StartReply,
    StartWorkflow,
)
from tests.core.workflow_case import (
    COMPLETED,
    NAMESPACE,
    WORKFLOW_ID,
    Case,
    completed,
    control,
    failing,
    resume,
    signal,
    start,
    task_outcome,
    timer_fired,
    wait_any,
)

PARENT = Parent(workflow_id="p", run_id="pr", command_id="pc", generation=0)


def begun(*positions: str) -> Case:
    """A run whose first turn issued tasks and waits for any of them."""
    case = Case()
    case.start()
    case.turn(*(case.command(position) for position in positions))
    return case


def test_rule_01_the_last_commit_is_published_again_although_the_run_has_ended() -> None:
    case = Case()
    case.start(parent=PARENT)
    last = [
        case.command("0", "signal", target="other"),
        case.command("1", "child", close_policy="abandon", child_id="kid"),
    ]
    turn = case.message(completed(case.asked(), last, completion=COMPLETED))
    first = case.deliver(turn)
    assert first.sent(SendSignal)
    assert first.sent(StartWorkflow)
    assert first.sent(ChildOutcome)
    again = case.deliver(turn)
    assert isinstance(again.decision, d.AlreadyRecorded)
    assert again.keys == first.keys


def test_rule_03_effects_come_from_what_is_recorded_not_from_the_message() -> None:
    case = Case()
    case.start()
    body = completed(case.asked(), [case.command("a")])
    first = case.deliver(case.message(body, id="turn"))
    other = case.deliver(case.message(replace(body, commands=[case.command("b")]), id="turn"))
    assert [task.name for task in first.sent(RunTask)] == ["a"]
    assert [task.name for task in other.sent(RunTask)] == ["a"]


def test_rule_04_a_repetition_leaves_out_what_has_its_outcome_but_no_send_nor_start() -> None:
    case = Case()
    case.start()
    task = case.command("a")
    commands = [task, case.command("s", "signal", target="other"), case.command("k", "child", child_id="kid")]
    turn = case.message(completed(case.asked(), commands))
    case.deliver(turn)
    case.send(task_outcome(case, task))
    again = case.deliver(turn)
    assert again.sent(RunTask) == []
    assert again.sent(DispatchTask) == []
    assert len(again.sent(SendSignal)) == 1
    assert len(again.sent(StartWorkflow)) == 1


@pytest.mark.parametrize(("size", "told"), [(RETOLD_BYTES_MAX, 0), (RETOLD_BYTES_MAX + 1, 1)])
def test_rule_27_a_task_whose_failure_may_come_without_it_is_supervised_from_the_start(size: int, told: int) -> None:
    case = Case()
    case.start()
    command = replace(case.command("a"), args=Payload("bytes", bytes(size)))
    assert len(case.deliver(case.message(completed(case.asked(), [command]), id="turn")).sent(DispatchTask)) == told


def test_rule_05_a_turn_is_owed_by_the_state_however_it_was_reached() -> None:
    case = begun("a")
    assert not case.state.needs_turn()
    command = case.known("a")
    reaction = case.send(task_outcome(case, command))
    assert len(reaction.sent(RunWorkflowTask)) == 1
    again = case.send(timer_fired(case, "turn"))  # nobody answers it: the slow sweep looks
    assert [task.workflow_task_id for task in again.sent(RunWorkflowTask)] == [
        task.workflow_task_id for task in reaction.sent(RunWorkflowTask)
    ]


def test_rule_06_a_message_is_known_again_after_any_number_of_others() -> None:
    case = begun("a")
    old = case.message(signal(1))
    case.deliver(old)
    for number in range(200):
        case.send(signal(number, sender="other"))
    assert isinstance(case.deliver(old).decision, d.AlreadyRecorded)


def test_rule_06_one_outcome_per_command_and_generation() -> None:
    case = begun("a")
    command = case.known("a")
    case.send(task_outcome(case, command))
    second = case.send(task_outcome(case, command, value=b"2"))
    assert second.decision == d.Discard("settled")
    assert second.recorded == []


def test_rule_06_a_signal_that_overtook_its_start_is_known_when_it_comes_again() -> None:
    case = Case()
    early = case.message(signal(1))
    case.deliver(early)
    case.start()
    assert isinstance(case.deliver(early).decision, d.AlreadyRecorded)


def test_rule_08_what_is_buffered_already_is_held_with_it() -> None:
    case = begun("a", "b")
    a = case.known("a")
    first = case.message(task_outcome(case, a))
    case.deliver(first, hold=True)
    assert case.committed < case.state.seq
    assert case.decide(first) == d.Attached()
    assert case.decide(case.message(task_outcome(case, a, "failed"))) == d.Attached()


def test_rule_10_events_that_differ_chain_to_different_hashes() -> None:
    one, other = begun("a"), begun("a")
    assert one.state.hashes == other.state.hashes
    command = one.known("a")
    one.send(task_outcome(one, command, value=b"1"), id="m")
    other.send(task_outcome(other, command, value=b"2"), id="m")
    assert one.state.hashes[-1] != other.state.hashes[-1]


def test_rule_10_two_executions_of_one_turn_chain_to_different_hashes() -> None:
    one, other = Case(), Case()
    for case, nonce in ((one, "x"), (other, "y")):
        case.send(start(), id="s")
        case.send(completed(case.asked()), id=nonce)
    assert one.state.hashes[1] == other.state.hashes[1]
    assert one.state.hashes[2] != other.state.hashes[2]


def test_rule_11_a_turn_names_what_it_rests_on() -> None:
    case = begun("a")
    command = case.known("a")
    case.deliver(case.message(task_outcome(case, command)), hold=True)
    asked, state = case.asked(), case.state
    assert (asked.committed, asked.base, asked.base_hash) == (2, 3, state.hashes[3])
    assert asked.hashes == state.hashes[3:4]
    assert [recorded.seq for recorded in asked.events] == [3]
    assert state.turn is not None
    assert (asked.previous_hash, asked.previous_nonce) == (state.hashes[1], state.turn.nonce)


def test_rule_12_a_turn_on_other_events_is_not_taken() -> None:
    case = begun("a", "b")
    other = copy.deepcopy(case)
    a, b = case.known("a"), case.known("b")
    case.send(task_outcome(case, a), id="a")
    case.send(task_outcome(case, b), id="b")
    other.send(task_outcome(other, b), id="b")
    other.send(task_outcome(other, a), id="a")
    reaction = case.send(completed(other.asked()))
    assert reaction.decision == d.Discard("diverged")


def test_rule_12_two_turns_on_overlapping_events_are_not_both_taken() -> None:
    case = begun("a", "b")
    a, b = case.known("a"), case.known("b")
    case.send(task_outcome(case, a))
    early = case.asked()
    case.send(task_outcome(case, b))
    late = case.asked()
    assert isinstance(case.send(completed(early, [case.command("c")])).decision, d.Record)
    assert case.send(completed(late, [case.command("d")])).decision == d.Discard("decided")


def test_rule_12_a_turn_from_before_a_rewind_is_not_taken() -> None:
    case = begun("a")
    a = case.known("a")
    case.send(task_outcome(case, a, "failed"))
    asked = case.asked()
    case.turn(completion=failing(a))
    case.send(resume())
    case.send(task_outcome(case, a, generation=1))
    assert case.send(completed(asked, completion=failing(a))).decision == d.Discard("rewound")


def test_rule_13_a_mismatch_with_the_buffer_alone_discards_nothing() -> None:
    case = begun("a", "b")
    other = copy.deepcopy(case)
    a, b = case.known("a"), case.known("b")
    case.deliver(case.message(task_outcome(case, a), id="a"), hold=True)
    other.deliver(other.message(task_outcome(other, b), id="b"), hold=True)
    turn = case.message(completed(other.asked()))
    assert case.decide(turn) == d.Ahead()
    case.flush()
    assert case.decide(turn) == d.Discard("diverged")


def test_rule_14_a_turn_that_is_ahead_is_waited_for_but_not_for_ever() -> None:
    other = begun("a")
    case = Case()
    turn = case.message(completed(other.asked()))
    assert case.decide(turn) == d.Ahead()
    case.now = turn.at + AHEAD_AGE_MAX_MS + 1
    assert case.decide(turn) == d.Discard("unknown-run")


def test_rule_14_a_turn_of_a_purged_run_is_not_waited_for() -> None:
    turn = completed(begun("a").asked())
    assert Case(purged=True).send(turn).decision == d.Discard("closed")


def test_rule_15_the_turn_asked_for_after_a_flush_is_the_same() -> None:
    case = begun("a")
    command = case.known("a")
    case.deliver(case.message(task_outcome(case, command)), hold=True)
    speculated = workflow_task(case.state, case.committed)[1]
    case.flush()
    flushed = workflow_task(case.state, case.committed)[1]
    assert flushed.id == speculated.id
    assert isinstance(flushed.body, RunWorkflowTask)
    assert flushed.body.committed == flushed.body.base


def test_rule_16_events_between_base_and_turn_are_fed_later() -> None:
    case = begun("a", "b")
    a, b = case.known("a"), case.known("b")
    case.send(task_outcome(case, a))
    asked = case.asked()
    case.send(task_outcome(case, b))
    reaction = case.send(completed(asked, waits=wait_any(b)))
    turn = reaction.events[0]
    assert isinstance(turn, TurnCommitted)
    assert turn.base == asked.base
    assert [recorded.seq for recorded in case.state.unfed] == [asked.base + 1]
    assert len(reaction.sent(RunWorkflowTask)) == 1


def test_rule_18_a_second_start_hears_who_won() -> None:
    case = Case()
    first = case.start(run_id="r1")
    assert isinstance(first.decision, d.Record)
    second = case.send(start(run_id="r2"))
    assert second.decision == d.Discard("already-started", second.published)
    (reply,) = second.sent(StartReply)
    assert (reply.status, reply.run_id) == ("conflict", "r1")


def test_rule_19_signals_before_their_start_are_recorded_and_fed_first() -> None:
    case = Case()
    assert case.send(signal(1)).decision == d.Record(events=[case.history[0].event], now=True)
    case.send(signal(2))
    case.start()
    kinds = [type(recorded.event).__name__ for recorded in case.asked().events]
    assert kinds == ["Started", "SignalReceived", "SignalReceived"]


@pytest.mark.parametrize("run_id", ["", "r1"])
@pytest.mark.parametrize("action", get_args(ControlAction))
def test_rule_19_what_a_client_does_to_no_run_is_answered_so_and_does_nothing_to_a_later_one(
    action: ControlAction, run_id: str
) -> None:
    case = Case()
    case.send(signal(1))
    asked = case.send(control(action, run_id=run_id))
    assert asked.decision == d.Discard("unknown-run", asked.published)
    assert [reply.status for reply in asked.sent(CommandReply)] == ["not-found"]
    case.start(run_id="r1")
    assert [type(recorded.event).__name__ for recorded in case.asked().events] == ["Started", "SignalReceived"]
    assert (case.state.canceled, case.state.ended, case.state.paused) == (None, None, False)


def test_rule_20_a_start_of_a_purged_run_or_an_old_one_is_refused() -> None:
    assert Case(purged=True).start(run_id="r1").recorded == []
    case = Case()
    old = case.message(start())
    case.now = old.at + START_AGE_MAX_MS + 1
    assert isinstance(case.decide(old), d.Discard)


def test_rule_28_the_first_recorded_outcome_wins() -> None:
    case = begun("a")
    command = case.known("a")
    case.send(task_outcome(case, command, "timed-out"))
    assert case.send(task_outcome(case, command)).decision == d.Discard("settled")


def test_rule_29_a_rewind_drops_turns_and_failures_and_keeps_successes_signals_and_cancel() -> None:
    case = begun("a", "b")
    a, b = case.known("a"), case.known("b")
    case.send(task_outcome(case, b, "failed"))
    case.send(task_outcome(case, a))
    case.send(signal(1))
    case.send(control("cancel"))
    case.turn(case.command("c"), completion=failing(b))
    reaction = case.send(resume())
    assert case.state.commands[a.id].settled == "completed"
    assert case.state.senders == {"s": 1}
    assert case.state.canceled is not None
    assert [known.command.position for known in case.state.orphans.values()] == ["c"]
    assert [(task.name, task.generation) for task in reaction.sent(RunTask)] == [("b", 1)]


def test_rule_30_a_command_after_a_rewind_has_an_id_of_its_own_unless_it_adopts() -> None:
    case = begun("a")
    a = case.known("a")
    case.send(task_outcome(case, a, "failed"))
    old = case.command("b")
    case.turn(old)
    case.fail_turn()
    case.send(resume(position="b"))
    assert case.command("b").id != old.id
    late = case.send(task_outcome(case, old))
    assert late.decision == d.Discard("unknown-command")


def test_rule_31_an_old_failure_is_no_news_an_old_success_is() -> None:
    outcomes: list[Outcome] = ["failed", "completed"]
    for outcome in outcomes:
        case = begun("a")
        a = case.known("a")
        case.send(task_outcome(case, a, "failed"))
        case.turn(completion=failing(a))
        case.send(resume())
        reaction = case.send(task_outcome(case, a, outcome, generation=0))
        if outcome == "failed":
            assert reaction.decision == d.Discard("old-generation")
        else:
            assert isinstance(reaction.events[0], CommandSettled)


def test_rule_31_messages_of_the_rewound_region_are_known() -> None:
    case = begun("a")
    a = case.known("a")
    failed = case.message(task_outcome(case, a, "failed"))
    case.deliver(failed)
    case.turn(completion=failing(a))
    case.send(resume())
    assert isinstance(case.deliver(failed).decision, d.AlreadyRecorded)


def test_rule_32_a_failed_run_goes_on_recording() -> None:
    case = begun("a", "b")
    a, b = case.known("a"), case.known("b")
    case.send(task_outcome(case, a, "failed"))
    case.turn(completion=failing(a))
    assert isinstance(case.send(task_outcome(case, b)).decision, d.Record)
    assert isinstance(case.send(signal(1)).decision, d.Record)
    case.send(control("terminate"))
    assert isinstance(case.send(signal(2)).decision, d.Discard)


def test_doubt_2_a_turn_nobody_answers_is_asked_for_again() -> None:
    case = Case()
    case.start()
    look = case.send(timer_fired(case, "turn"))
    assert isinstance(look.decision, d.RunTurn)
    assert len(look.sent(RunWorkflowTask)) == 1


def test_doubt_3_a_last_turn_that_has_not_seen_a_signal_is_run_again() -> None:
    case = begun("a")
    command = case.known("a")
    case.send(task_outcome(case, command))
    asked = case.asked()
    case.send(signal(1))
    assert isinstance(case.send(completed(asked, completion=COMPLETED)).decision, d.Refuse)
    assert case.state.ended is None
    assert case.state.needs_turn()
    case.turn(completion=COMPLETED)
    assert isinstance(case.history[-1].event, RunEnded)


def test_doubt_3_also_of_a_stuck_run_which_asks_for_no_turn_by_itself() -> None:
    """Found by simulation: it waited for ever."""
    case = Case()
    case.start()
    asked = case.asked()
    case.fail_turn()
    case.send(signal(1))
    again = case.send(completed(asked, completion=COMPLETED))
    assert isinstance(again.decision, d.RunTurn)
    [turn] = again.sent(RunWorkflowTask)
    case.send(completed(turn, completion=COMPLETED))
    assert isinstance(case.history[-1].event, RunEnded)


def test_doubt_7_a_success_after_a_failure_counts_only_through_a_rewind() -> None:
    case = begun("a")
    a = case.known("a")
    case.send(task_outcome(case, a, "failed"))
    case.turn(completion=failing(a))
    assert case.send(task_outcome(case, a)).decision == d.Discard("settled")
    case.send(resume())
    assert isinstance(case.send(task_outcome(case, a, generation=1)).decision, d.Record)


def test_doubt_8_causes_are_found_over_the_whole_history_of_a_loaded_run() -> None:
    case = begun("a")
    case.send(signal(1))
    case.state = fold(NAMESPACE, WORKFLOW_ID, 1, case.history)
    assert [case.state.causes[recorded.cause] for recorded in case.history] == [1, 2, 3]
