"""What recorded events publish.

A function of the events and of the state after them, so it can be repeated at any time: when a message is
found already recorded, the effects of its commit are published again. Ids are derived, so receivers
recognise the repetition. A command that has its outcome by then is left out; sends, starts and ends are not.
Publish only after the commit, and have all confirmed before the commit's messages are acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.replies import run_result
from perdure_core.workflow_engine.state import CommandState, RunState
from perdure_schemas import ids, topics
from perdure_schemas.common import Address, Command, Outcome, Parent, RunOptions, TaskOptions, WorkflowRef
from perdure_schemas.events import EndStatus, Recorded, Rewound, RunEnded, Started, Stuck, TurnCommitted
from perdure_schemas.messages import (
    Body,
    CancelTask,
    CancelTimer,
    ChildOutcome,
    ControlRun,
    DispatchTask,
    Message,
    ResumeRun,
    RunTask,
    ScheduleTimer,
    SendSignal,
    StartWorkflow,
    TimerFired,
    TimerKind,
    UpdateResult,
)

TURN_RETRY_INITIAL_MS = 1_000
TURN_RETRY_MAX_MS = 300_000
"""A stuck turn is retried after 1 s, doubling up to 5 minutes: a fix is seen soon, a broken run costs little."""

_CHILD_OUTCOMES: dict[EndStatus, Outcome] = {
    "completed": "completed",
    "failed": "failed",
    "canceled": "canceled",
    "terminated": "canceled",
    "timed-out": "timed-out",
}


def effects(state: RunState, events: Sequence[Recorded]) -> list[Published]:
    """What the events of one commit publish, given the committed state."""
    published: list[Published] = []
    for recorded in events:
        event = recorded.event
        match event:
            case Started():
                published += _run_timeout(state, event, recorded.at)
            case TurnCommitted():
                for index, command in enumerate(event.commands):
                    published += _command(state, command, recorded, index)
            case Rewound():
                published += _rewound(state, event, recorded)
            case Stuck():
                if state.stuck is event:
                    published.append(turn_retry_timer(state, recorded.at, 1))
            case RunEnded():
                if state.ended is not None and recorded.at == state.ended_at:
                    published += _ended(state, event)
            case _:
                pass
    return published


def turn_retry_timer(state: RunState, at: int, attempt: int) -> Published:
    """Try the stuck turn again after its back-off."""
    delay = min(TURN_RETRY_MAX_MS, TURN_RETRY_INITIAL_MS * 2 ** min(attempt - 1, 20))
    return _timer(state, "turn", at + delay, attempt=attempt + 1, command_id="")


def _message(state: RunState, key: str, at: int, body: Body, *identity: str | int) -> Message:
    return Message(
        id=ids.derive_id(*identity), namespace=state.namespace, key=key, at=at, body=body, emitter="workflow-engine"
    )


def _timer(state: RunState, kind: TimerKind, due_at: int, *, command_id: str, attempt: int = 0) -> Published:
    timer_id = command_id or ids.derive_id(state.run_id, kind, state.generation, attempt)
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
    return topics.TIMERS, _message(state, timer_id, due_at, schedule, timer_id, "schedule", attempt)


def _run_timeout(state: RunState, started: Started, at: int) -> list[Published]:
    if started.options.run_timeout_ms is None or state.ended is not None:
        return []
    return [_timer(state, "run-timeout", at + started.options.run_timeout_ms, command_id="")]


def _command(state: RunState, command: Command, recorded: Recorded, index: int) -> list[Published]:
    match command.kind:
        case "task" | "child" | "timer":
            return _issue(state, command, recorded)
        case "cancel":
            target = state.commands.get(command.target)
            return [] if target is None else [_cancel(state, target.command, recorded.at)]
        case "signal":
            return [_signal(state, command, recorded, index)]
        case "update-result":
            return _update_result(state, command, recorded.at)
        case "inline" | "attributes":
            return []
        case _:
            assert_never(command.kind)


def _issue(state: RunState, command: Command, recorded: Recorded) -> list[Published]:
    """Nothing for a command that has its outcome, that an older turn dispatched, or that a rewind dispatched anew."""
    open_command = state.open_command(command.id)
    turn = recorded.event
    assert isinstance(turn, TurnCommitted)
    if open_command is None or state.closed or open_command.generation != turn.generation:
        return []
    own_id = ids.command_id(state.namespace, state.workflow_id, state.run_id, turn.generation, command.position)
    if command.kind == "child" and command.id != own_id:
        return [_resume_child(state, command, recorded.at)]
    return _start(state, open_command, recorded.at)


def _resume_child(state: RunState, command: Command, at: int) -> Published:
    child_id = child_workflow_id(command)
    body = ResumeRun(workflow_id=child_id, run_id=ids.derive_id(command.id, "run"), actor="parent", only=True)
    message = _message(state, child_id, at, body, command.id, "resume", state.generation)
    return topics.WORKFLOW_ENGINE, message


def _start(state: RunState, open_command: CommandState, at: int) -> list[Published]:
    command = open_command.command
    if command.kind == "timer":
        assert command.due_at is not None
        return [_timer(state, "command", command.due_at, command_id=command.id)]
    if command.kind == "child":
        return [_start_child(state, command, open_command.generation, at)]
    return dispatch_task(state, open_command, at)


def dispatch_task(state: RunState, open_command: CommandState, at: int) -> list[Published]:
    """Attempt 1 straight to the task's topic, and beside it the task engine's order to supervise it."""
    command, generation = open_command.command, open_command.generation
    assert command.args is not None
    edit = state.edits.get(command.position)
    args = edit.args if edit is not None and edit.args is not None else command.args
    options = command.task if command.task is not None else TaskOptions()
    answer_to = [Address(topics.WORKFLOW_ENGINE, state.workflow_id), Address(topics.TASK_ENGINE, command.id)]
    assert state.started is not None
    workflow = WorkflowRef(state.workflow_id, state.run_id, state.started.name)
    supervise = DispatchTask(
        task_id=command.id,
        name=command.name,
        args=args,
        options=options,
        answer_to=answer_to,
        generation=generation,
        workflow=workflow,
    )
    attempt_id = ids.attempt_id(command.id, generation, 1)
    run = RunTask(
        task_id=command.id,
        attempt_id=attempt_id,
        attempt=1,
        name=command.name,
        args=args,
        options=options,
        answer_to=answer_to,
        generation=generation,
        workflow=workflow,
    )
    return [
        (topics.TASK_ENGINE, _message(state, command.id, at, supervise, command.id, "dispatch", generation)),
        (topics.task_run(command.name, options.build), _message(state, command.id, at, run, attempt_id, "run")),
    ]


def _start_child(state: RunState, command: Command, generation: int, at: int) -> Published:
    assert command.args is not None
    child_id = child_workflow_id(command)
    parent = Parent(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        command_id=command.id,
        generation=generation,
        close_policy=command.close_policy,
    )
    start = StartWorkflow(
        workflow_id=child_id,
        run_id=ids.derive_id(command.id, "run"),
        name=command.name,
        args=command.args,
        parent=parent,
        build=state.build if command.build_policy == "inherit" else None,
        options=command.run if command.run is not None else RunOptions(),
    )
    return topics.WORKFLOW_ENGINE, _message(state, child_id, at, start, command.id, "start")


def child_workflow_id(command: Command) -> str:
    """The id its author gave the child, or one derived from the command."""
    return command.child_id or f"child-{command.id}"


def _cancel(state: RunState, command: Command, at: int) -> Published:
    if command.kind == "timer":
        body: Body = CancelTimer(timer_id=command.id)
        return topics.TIMERS, _message(state, command.id, at, body, command.id, "cancel")
    if command.kind == "child":
        child_id = child_workflow_id(command)
        body = ControlRun(
            workflow_id=child_id, action="cancel", run_id=ids.derive_id(command.id, "run"), actor="parent"
        )
        return topics.WORKFLOW_ENGINE, _message(state, child_id, at, body, command.id, "cancel")
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
    return topics.TASK_ENGINE, _message(state, command.id, at, body, command.id, "cancel", state.generation)


SIGNALS_PER_TURN_MAX = 1_000_000
"""Numbers of one run's signals count by turn, then by position in it; a turn cannot have as many commands."""


def _signal(state: RunState, command: Command, recorded: Recorded, index: int) -> Published:
    assert command.args is not None
    assert isinstance(recorded.event, TurnCommitted)
    earlier = [
        position
        for position, other in enumerate(recorded.event.commands[:index])
        if other.kind == "signal" and other.target == command.target
    ]
    first = recorded.seq * SIGNALS_PER_TURN_MAX
    body = SendSignal(
        workflow_id=command.target,
        channel=command.name,
        payload=command.args,
        sender=state.run_id,
        number=first + index + 1,
        after_number=first + earlier[-1] + 1 if earlier else 0,
    )
    return topics.WORKFLOW_ENGINE, _message(state, command.target, recorded.at, body, command.id, "signal")


def _update_result(state: RunState, command: Command, at: int) -> list[Published]:
    if not command.name:
        return []
    body = UpdateResult(
        update_id=command.target,
        status="ok" if command.failure is None else "refused",
        result=command.args,
        failure=command.failure,
    )
    return [(command.name, _message(state, "", at, body, command.id, "update-result"))]


def _rewound(state: RunState, event: Rewound, recorded: Recorded) -> list[Published]:
    """Commands in force whose failure was dropped are tried again; a failed child is resumed instead."""
    published: list[Published] = []
    for command_id in sorted(state.undone):
        open_command = state.open_command(command_id)
        if open_command is None or open_command.generation != event.generation:
            continue
        command = open_command.command
        if command.kind == "child":
            published.append(_resume_child(state, command, recorded.at))
        elif command.kind == "task":
            published += dispatch_task(state, open_command, recorded.at)
    return published


def _ended(state: RunState, event: RunEnded) -> list[Published]:
    started = state.started
    assert started is not None
    published: list[Published] = []
    if started.parent is not None and event.status != "continued-as-new":
        published.append(_tell_parent(state, started.parent, event))
    if started.reply_topic:
        published.append(run_result(state, event, started.reply_topic))
    if event.completion is not None and event.completion.next_run is not None:
        published.append(_continue(state, started, event))
    if event.status != "failed":
        published += close_commands(state)
    published.append(_timer(state, "retention", state.ended_at + started.options.retention_ms, command_id=""))
    return published


def _tell_parent(state: RunState, parent: Parent, event: RunEnded) -> Published:
    outcome = ChildOutcome(
        workflow_id=parent.workflow_id,
        run_id=parent.run_id,
        command_id=parent.command_id,
        generation=parent.generation,
        outcome=_CHILD_OUTCOMES[event.status],
        result=event.result,
        failure=event.failure,
    )
    identity = (state.run_id, "outcome", state.generation)
    return topics.WORKFLOW_ENGINE, _message(state, parent.workflow_id, state.ended_at, outcome, *identity)


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
        options=started.options,
        parent=started.parent,
        build=state.build if following.build_policy == "inherit" else None,
        reply_topic=started.reply_topic,
        continued_from=state.run_id,
        signals=[state.signals[seq] for seq in sorted(following.unreceived) if seq in state.signals],
    )
    identity = (event.next_run_id, "start")
    return topics.WORKFLOW_ENGINE, _message(state, state.workflow_id, state.ended_at, start, *identity)


def close_commands(state: RunState) -> list[Published]:
    """At a run's end: open tasks and timers are canceled, children follow their close policy."""
    published: list[Published] = []
    for open_command in state.commands.values():
        command = open_command.command
        if open_command.settled is not None:
            continue
        if command.kind != "child":
            published.append(_cancel(state, command, state.ended_at))
        elif command.close_policy != "abandon":
            child_id = child_workflow_id(command)
            body = ControlRun(
                workflow_id=child_id,
                action=command.close_policy,
                run_id=ids.derive_id(command.id, "run"),
                reason="the parent ended",
                actor="parent",
            )
            message = _message(state, child_id, state.ended_at, body, command.id, "close", state.generation)
            published.append((topics.WORKFLOW_ENGINE, message))
    return published
