"""What recorded events publish.

A function of the events and of the state after them, so it can be repeated at any time: when a message is
found already recorded, the effects of its commit are published again. Ids are derived, so receivers
recognise the repetition. A command that has its outcome by then is left out; sends, starts and ends are not.
Publish only after the commit, and have all confirmed before the commit's messages are acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import assert_never

import msgspec

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.dispatch import args_of, dispatch_task
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.replies import run_result, tell_parent, update_result
from perdure_core.workflow_engine.state import Dispatched, RunState
from perdure_schemas import ids, topics
from perdure_schemas.common import RETENTION_MS, Address, Command, Parent, RunOptions, WorkflowRef
from perdure_schemas.events import CommandSettled, Recorded, Rewound, RunEnded, Started, Stuck, TurnCommitted, Unpaused
from perdure_schemas.messages import (
    Body,
    CancelTask,
    CancelTimer,
    ControlRun,
    ScheduleTimer,
    SendSignal,
    StartWorkflow,
    TimerFired,
    TimerKind,
    UpdateResult,
)

CANCEL_FROM_MS = 24 * 3_600_000
"""A time-out that is due within a day is left to fire for nothing, rather than canceled at each run's end."""
TURN_RETRY_INITIAL_MS = 1_000
TURN_RETRY_MAX_MS = 300_000
"""A stuck turn is retried after 1 s, doubling up to 5 minutes: a fix is seen soon, a broken run costs little."""


def effects(state: RunState, events: Sequence[Recorded]) -> list[Published]:
    """What the events of one commit publish, given the committed state."""
    return [published for recorded in events for published in _of_event(state, recorded)]


def _of_event(state: RunState, recorded: Recorded) -> list[Published]:
    event = recorded.event
    match event:
        case Started():  # after a rewind the time-out of that generation is under way, from the rewind on
            return [] if state.generation else _run_timeout(state, event, recorded.at)
        case TurnCommitted():
            return _turn(state, event, recorded)
        case Rewound():
            return _rewound(state, event, recorded)
        case Stuck():
            return _stuck(state, recorded)
        case Unpaused():
            return _unpaused(state, recorded)
        case RunEnded():
            return _ended(state, event, recorded)
        case CommandSettled():
            return starts_after(state, event.command_id, recorded.at)
        case _:
            return []


def _stuck(state: RunState, recorded: Recorded) -> list[Published]:
    if state.stuck is None or state.stuck_seq != recorded.seq:
        return []
    return [turn_retry_timer(state, recorded.at, state.stuck_count)]


def _unpaused(state: RunState, recorded: Recorded) -> list[Published]:
    """While the run was paused its stuck turn was not tried, and the timer that tries it again ran out."""
    if state.stuck is None or state.paused or state.ended is not None:
        return []
    return [turn_retry_timer(state, recorded.at, 1)]


def turn_retry_timer(state: RunState, at: int, attempt: int) -> Published:
    """Try the stuck turn again after its back-off."""
    delay = min(TURN_RETRY_MAX_MS, TURN_RETRY_INITIAL_MS * 2 ** min(attempt - 1, 20))
    return _timer(state, "turn", at + delay, attempt=attempt + 1)


def _timer(
    state: RunState, kind: TimerKind, due_at: int, *, of: Dispatched | None = None, attempt: int = 0
) -> Published:
    """`of`: the command of a workflow's own timer."""
    timer_id = _timer_id(state, kind, state.generation, attempt) if of is None else _command_timer_id(of)
    command_id = "" if of is None else of.command.id
    fired = TimerFired(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        kind=kind,
        command_id=command_id,
        generation=state.generation,
        attempt=attempt,
        due_at=due_at,
    )
    schedule = ScheduleTimer(
        timer_id=timer_id,
        due_at=due_at,
        target=Address(topics.WORKFLOW_ENGINE, state.workflow_id),
        fires=fired,
        message_id=ids.derive_id(timer_id, "fired"),
    )
    return topics.TIMERS, outgoing(state.namespace, timer_id, due_at, schedule, timer_id, "schedule", attempt)


def _timer_id(state: RunState, kind: TimerKind, generation: int, attempt: int = 0) -> str:
    """Of the engine's own timers of a run; those of stuck turns differ from one stuck turn to the next."""
    return ids.derive_id(state.run_id, kind, generation, attempt, state.stuck_seq if kind == "turn" else 0)


def _command_timer_id(known: Dispatched) -> str:
    """Another one each time it is armed: a cancel from before a rewind may come once more, and is not for this one."""
    return ids.derive_id(known.command.id, "timer", known.generation)


def _run_timeout(state: RunState, started: Started, at: int) -> list[Published]:
    if started.options.run_timeout_ms is None or state.ended is not None:
        return []
    return [_timer(state, "run-timeout", at + started.options.run_timeout_ms)]


def _run_timeout_off(state: RunState, started: Started) -> list[Published]:
    """If it is far ahead. Those of earlier generations too: nobody canceled that of a stuck run which was rewound."""
    timeout_ms, published = started.options.run_timeout_ms, list[Published]()
    for generation, since in state.timed_from.items():
        if timeout_ms is not None and since + timeout_ms > state.ended_at + CANCEL_FROM_MS:
            timer_id = _timer_id(state, "run-timeout", generation)
            body = CancelTimer(timer_id=timer_id, due_at=since + timeout_ms)
            cancel = outgoing(state.namespace, timer_id, state.ended_at, body, timer_id, "cancel")
            published.append((topics.TIMERS, cancel))
    return published


def _turn(state: RunState, turn: TurnCommitted, recorded: Recorded) -> list[Published]:
    published: list[Published] = []
    numbers: dict[str, int] = {}
    for index, command in enumerate(turn.commands):
        if command.kind == "signal":
            if command.id != _own_id(state, turn, command):
                continue  # adopted: a turn that a rewind dropped has sent it
            number = recorded.seq * SIGNALS_PER_TURN_MAX + index + 1
            published.append(_signal(state, command, recorded.at, number=number, after=numbers.get(command.target, 0)))
            numbers[command.target] = number
        else:
            published += _command(state, command, recorded)
    return published


def _own_id(state: RunState, turn: TurnCommitted, command: Command) -> str:
    return ids.command_id(state.namespace, state.workflow_id, state.run_id, turn.generation, command.position)


def _command(state: RunState, command: Command, recorded: Recorded) -> list[Published]:
    match command.kind:
        case "task" | "child" | "timer":
            return _issue(state, command, recorded)
        case "cancel":
            target = state.commands.get(command.target)  # not settled: a rewind dropped the turn that canceled it
            return [] if target is None or target.settled is None else [_cancel(state, target, recorded.at)]
        case "update-result":
            return _update_result(state, command, recorded.at)
        case "inline" | "attributes" | "signal":
            return []
        case _:
            assert_never(command.kind)


def _issue(state: RunState, command: Command, recorded: Recorded) -> list[Published]:
    """Nothing for a command that has its outcome, that an older turn dispatched, or that a rewind dispatched anew.

    Of a turn that was dropped before all of it was published, the rest is published still: whoever adopts a command
    takes it to be under way.
    After the end only children that outlive the run are started.
    """
    known = state.under_way(command.id)
    turn = recorded.event
    assert isinstance(turn, TurnCommitted)
    if known is None or known.generation != turn.generation:
        return []
    if state.closed and not (command.kind == "child" and command.close_policy == "abandon"):
        return []
    return _start(state, known, recorded.at)


def _start(state: RunState, open_command: Dispatched, at: int) -> list[Published]:
    command = open_command.command
    if command.kind == "timer":
        assert command.due_at is not None
        return [_timer(state, "command", command.due_at, of=open_command)]
    if command.kind == "child":
        return _start_child(state, command, open_command.generation, at)
    return dispatch_task(state, open_command, at)


def _start_child(state: RunState, command: Command, generation: int, at: int) -> list[Published]:
    """In the place of a child that a rewind dropped it begins once that one, which is told to end, has ended."""
    child_id = child_workflow_id(command)
    parent = Parent(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        command_id=command.id,
        generation=generation,
        close_policy=command.close_policy,
    )
    replaces = _replaces(state, command)
    start = StartWorkflow(
        workflow_id=child_id,
        run_id=ids.derive_id(command.id, "run"),
        name=command.name,
        args=args_of(state, command),
        parent=parent,
        build=_build_of(state, command),
        options=command.run if command.run is not None else RunOptions(),
        conflict_policy="use-existing" if replaces else "fail",
    )
    message = outgoing(state.namespace, child_id, at, start, command.id, "start", generation)
    return [*(_close_replaced(state, command, at) if replaces else []), (topics.WORKFLOW_ENGINE, message)]


def _replaces(state: RunState, child: Command) -> bool:
    """Whether a rewind dropped a child of this id, which may be there still.

    Not so if an open command in force had the id before: then this one asks for it twice.
    """
    if not child.child_id or child.child_id not in state.dropped_children.values():
        return False
    before = takewhile(lambda known: known.command.id != child.id, state.commands.values())
    return not any(known.settled is None and known.command.child_id == child.child_id for known in before)


def starts_after(state: RunState, command_id: str, at: int) -> list[Published]:
    """After the end of a child: that of what may have waited for it, under the id that it had. See start.py.

    Also if a resume has dropped what waits: whoever adopts it takes it to be under way.
    """
    ended = state.commands.get(command_id)
    child_id = ended.command.child_id if ended is not None else state.dropped_children.get(command_id, "")
    if not child_id or child_id not in state.dropped_children.values():
        return []
    waiting = (
        known
        for known in state.still_open
        if known.command.child_id == child_id and known.command.id != command_id
        if not state.closed or known.command.close_policy == "abandon"
    )
    first = next(waiting, None)
    return [] if first is None else _start(state, first, at)


def _close_replaced(state: RunState, child: Command, at: int) -> list[Published]:
    """A resume leaves what it dropped for the code to adopt. Where the code asks for another child of that id instead,
    nobody else would end the old one, also if a person gave its result. (A reset has ended what it drops already.)"""
    others = (known for known in state.orphans.values() if known.command.id != child.id)
    return [
        message for known in others if known.command.child_id == child.child_id for message in _close(state, known, at)
    ]


def _build_of(state: RunState, child: Command) -> str | None:
    if child.build is not None:
        return child.build
    return state.build if child.build_policy == "inherit" else None


def child_workflow_id(command: Command) -> str:
    """The id its author gave the child, or one derived from the command."""
    return command.child_id or f"child-{command.id}"


def _cancel(state: RunState, known: Dispatched, at: int) -> Published:
    command = known.command
    if command.kind == "timer":
        timer_id = _command_timer_id(known)
        body: Body = CancelTimer(timer_id=timer_id, due_at=command.due_at or 0)
        return topics.TIMERS, outgoing(state.namespace, timer_id, at, body, timer_id, "cancel", state.generation)
    if command.kind == "child":
        child_id = child_workflow_id(command)
        body = ControlRun(
            workflow_id=child_id, action="cancel", run_id=ids.derive_id(command.id, "run"), actor="parent"
        )
        cancel = outgoing(state.namespace, child_id, at, body, command.id, "cancel", state.generation)
        return topics.WORKFLOW_ENGINE, cancel
    return _cancel_task(state, command, at)


def _cancel_task(state: RunState, command: Command, at: int) -> Published:
    assert state.started is not None
    body = CancelTask(
        task_id=command.id,
        actor="workflow",
        generation=state.generation,
        workflow=WorkflowRef(state.workflow_id, state.run_id, state.started.name),
        answer_to=[Address(topics.WORKFLOW_ENGINE, state.workflow_id)],
    )
    return topics.TASK_ENGINE, outgoing(state.namespace, command.id, at, body, command.id, "cancel", state.generation)


SIGNALS_PER_TURN_MAX = 1_000_000
"""Numbers of one run's signals count by turn, then by position in it; a turn cannot have as many commands."""


def _signal(state: RunState, command: Command, at: int, *, number: int, after: int) -> Published:
    """Signals of one turn to one workflow id name each other in order; those of different turns need not."""
    assert command.args is not None
    body = SendSignal(
        workflow_id=command.target,
        channel=command.name,
        payload=command.args,
        sender=state.run_id,
        number=number,
        after_number=after,
    )
    return topics.WORKFLOW_ENGINE, outgoing(state.namespace, command.target, at, body, command.id, "signal")


def _update_result(state: RunState, command: Command, at: int) -> list[Published]:
    if not command.name:
        return []
    identity = (command.id, "update-result")
    return [(command.name, outgoing(state.namespace, "", at, update_result(command), *identity))]


def _rewound(state: RunState, event: Rewound, recorded: Recorded) -> list[Published]:
    """Commands in force whose failure was dropped are tried again, as are those the run's end had canceled.

    The run's time-out counts anew; what waited to purge the run is off. What a reset does anew is told to end, also if
    another rewind, or the end, came before that was published: nobody else would tell it.
    """
    assert state.started is not None
    dropped = state.abandoned.get(event.generation, ())
    published = [message for known in dropped for message in _close(state, known, recorded.at)]
    if event.generation != state.generation or state.closed:
        return published
    published += _run_timeout(state, state.started, recorded.at)
    published.append(_retention_off(state, recorded))
    for command_id in sorted(state.undone):
        open_command = state.open_command(command_id)
        if open_command is not None and open_command.generation == event.generation:
            published += _start(state, open_command, recorded.at)
    return published


def _retention_off(state: RunState, recorded: Recorded) -> Published:
    timer_id = _timer_id(state, "retention", state.generation - 1)
    cancel = outgoing(state.namespace, timer_id, recorded.at, CancelTimer(timer_id=timer_id), timer_id, "cancel")
    return topics.TIMERS, cancel


def _ended(state: RunState, event: RunEnded, recorded: Recorded) -> list[Published]:
    """Nothing for an end that a rewind undid or another one followed."""
    started = state.started
    if started is None or state.ended is None or state.ended_seq != recorded.seq:
        return []
    published: list[Published] = []
    if started.parent is not None and event.status != "continued-as-new":
        published.append(tell_parent(state, started.parent, event))
    published += _unanswered(state)
    if started.reply_topic:
        published.append(run_result(state, event, started.reply_topic))
    if event.completion is not None and event.completion.next_run is not None:
        published.append(_continue(state, started, event))
    if not event.resumable:
        published += _close_commands(state)
    published += _run_timeout_off(state, started)
    published.append(_timer(state, "retention", state.ended_at + started.options.retention_ms))
    return published


def _unanswered(state: RunState) -> list[Published]:
    """Whoever asked for an update that will get no answer any more."""
    refused: list[Published] = []
    for update_id, topic in state.updates.items():
        body = UpdateResult(update_id=update_id, status="refused")
        identity = (state.run_id, "unanswered", state.generation, update_id)
        refused.append((topic, outgoing(state.namespace, "", state.ended_at, body, *identity)))
    return refused


def _continue(state: RunState, started: Started, event: RunEnded) -> Published:
    completion = event.completion
    assert completion is not None
    assert completion.next_run is not None
    following = completion.next_run
    start = StartWorkflow(
        workflow_id=state.workflow_id,
        run_id=event.next_run_id,
        name=following.name,
        args=following.args,
        options=_given(started),
        parent=started.parent,
        build=state.build if following.build_policy == "inherit" else None,
        reply_topic=started.reply_topic,
        continued_from=state.run_id,
        signals=[state.signals[seq] for seq in sorted(following.unreceived) if seq in state.signals],
    )
    identity = (event.next_run_id, "start")
    return topics.WORKFLOW_ENGINE, outgoing(state.namespace, state.workflow_id, state.ended_at, start, *identity)


def _given(started: Started) -> RunOptions:
    """The options as its start gave them. What continues the run gets the defaults of its own time, as it does its
    build: else those that were declared when a chain began would hold for ever."""
    options = started.options
    if started.run_timeout_defaulted:
        options = msgspec.structs.replace(options, run_timeout_ms=None)
    if started.retention_defaulted:
        options = msgspec.structs.replace(options, retention_ms=RETENTION_MS)
    return options


def _close_commands(state: RunState) -> list[Published]:
    """At a run's end: what is open is canceled, children follow their close policy. Dropped turns' commands too."""
    at_once = _of_last_turn(state)
    return [
        published
        for known in state.still_open
        if known.command.id not in at_once
        for published in _close(state, known, state.ended_at)
    ]


def _of_last_turn(state: RunState) -> set[str]:
    """Commands of the very turn that ended the run: they were not dispatched, so there is nothing to cancel."""
    ended, turn = state.ended, state.turn
    if ended is None or ended.completion is None or turn is None:
        return set()
    issued = [state.commands[command.id] for command in turn.commands if command.id in state.commands]
    return {known.command.id for known in issued if known.generation == turn.generation}


def _close(state: RunState, known: Dispatched, at: int) -> list[Published]:
    command = known.command
    if command.kind != "child":
        return [_cancel(state, known, at)]
    if command.close_policy == "abandon":
        return []
    child_id = child_workflow_id(command)
    body = ControlRun(
        workflow_id=child_id,
        action=command.close_policy,
        run_id=ids.derive_id(command.id, "run"),
        reason="the parent ended, or went back to before it asked for this",
        actor="parent",
    )
    message = outgoing(state.namespace, child_id, at, body, command.id, "close", state.generation)
    return [(topics.WORKFLOW_ENGINE, message)]
