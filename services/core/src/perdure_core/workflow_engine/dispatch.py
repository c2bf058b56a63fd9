"""How a task gets to a worker, and when the task engine hears of it.

Attempt 1 goes straight to the task's topic. The task engine is needed once the attempt fails, which its worker tells
with all that a record needs (protocol rule 27), or should a time-out pass. So a task without time-outs is supervised
only if it is not over soon: most are, and then nobody but their run hears of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.state import Dispatched, RunState
from perdure_schemas import ids, topics
from perdure_schemas.common import Address, Command, Payload, TaskOptions, WorkflowRef
from perdure_schemas.events import CommandSettled, Recorded, TurnCommitted
from perdure_schemas.messages import AttemptOutcome, DispatchTask, RunTask

SUPERVISED_AFTER_MS = 900
"""A task that is not over by then is told to the task engine, which lists what waits for a worker. Less than the second
for which that engine holds what it knows no task for: whoever asks for one that was dispatched just now finds it."""
RETOLD_BYTES_MAX = 990_000
"""Of arguments: with more, which no SDK sends, a failure may not fit into a message beside them, and comes without."""
_FIRST = 1
"""The attempt that the workflow engine dispatches; those after it are the task engine's."""


def dispatch_task(state: RunState, known: Dispatched, at: int) -> list[Published]:
    """Attempt 1 straight to the task's topic, behind the order to supervise it, if that is needed from the start."""
    task = _task(state, known)
    attempt_id = ids.attempt_id(task.task_id, task.generation, _FIRST)
    at_once = not _may_wait(state, known)
    run = RunTask(
        task_id=task.task_id,
        attempt_id=attempt_id,
        attempt=_FIRST,
        name=task.name,
        args=task.args,
        options=task.options,
        answer_to=task.answer_to,
        generation=task.generation,
        workflow=task.workflow,
        supervised=at_once,
    )
    topic = topics.task_run(task.name, task.options.build)
    sent = (topic, outgoing(state.namespace, task.task_id, at, run, attempt_id, "run"))
    return [_order(state, task, at), sent] if at_once else [sent]


def supervise(state: RunState, known: Dispatched, at: int) -> Published:
    """The order to the task engine. However often it comes, a task has one record."""
    return _order(state, _task(state, known), at)


def _order(state: RunState, task: DispatchTask, at: int) -> Published:
    identity = (task.task_id, "dispatch", task.generation)
    return topics.TASK_ENGINE, outgoing(state.namespace, task.task_id, at, task, *identity)


def unsupervised(state: RunState, events: Iterable[Recorded]) -> list[str]:
    """Ids of the tasks that these committed events dispatched, and that nobody supervises so far."""
    found: list[str] = []
    for recorded in events:
        if not isinstance(recorded.event, TurnCommitted):
            continue
        for command in recorded.event.commands:
            if command.kind == "task":
                known = state.open_command(command.id)
                if known is not None and _may_wait(state, known):
                    found.append(command.id)
    return found


def supervision_over(state: RunState, events: Iterable[Recorded], supervised: Container[str]) -> list[Published]:
    """To the task engine: the successes among these events of tasks that it was told of late.

    Their workers may have taken them for unsupervised, and told the run alone.
    """
    return [
        _over(state, recorded.event, recorded.at)
        for recorded in events
        if isinstance(recorded.event, CommandSettled)
        and recorded.event.command_id in supervised
        and recorded.event.outcome == "completed"
        and recorded.event.attempt == _FIRST
    ]


def _over(state: RunState, settled: CommandSettled, at: int) -> Published:
    task_id, attempt_id = settled.command_id, ids.attempt_id(settled.command_id, settled.generation, _FIRST)
    body = AttemptOutcome(
        task_id=task_id,
        attempt_id=attempt_id,
        attempt=_FIRST,
        outcome="completed",
        generation=settled.generation,
        result=settled.result,
    )
    return topics.TASK_ENGINE, outgoing(state.namespace, task_id, at, body, attempt_id, "over")


def _may_wait(state: RunState, known: Dispatched) -> bool:
    """Of a task that a rewind dispatched anew the task engine may have a record, which speaks of what was before."""
    if len(args_of(state, known.command).data) > RETOLD_BYTES_MAX:
        return False
    options = _options(known.command)
    timeouts = (
        *(options.queue_timeout_ms, options.attempt_timeout_ms),
        *(options.heartbeat_timeout_ms, options.total_timeout_ms),
    )
    return known.generation == 0 and all(timeout is None for timeout in timeouts)


def _task(state: RunState, known: Dispatched) -> DispatchTask:
    command = known.command
    assert state.started is not None
    return DispatchTask(
        task_id=command.id,
        name=command.name,
        args=args_of(state, command),
        options=_options(command),
        answer_to=[Address(topics.WORKFLOW_ENGINE, state.workflow_id), Address(topics.TASK_ENGINE, command.id)],
        generation=known.generation,
        workflow=WorkflowRef(state.workflow_id, state.run_id, state.started.name),
    )


def _options(command: Command) -> TaskOptions:
    return command.task if command.task is not None else TaskOptions()


def args_of(state: RunState, command: Command) -> Payload:
    """What its task or child is given: as the code says, or as a person has corrected it."""
    assert command.args is not None
    edit = state.edits.get(command.position)
    return edit.args if edit is not None and edit.args is not None else command.args
