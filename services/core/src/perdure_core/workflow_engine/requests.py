"""What the engine asks of workers, and what it tells the read models."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.sizes import command_bytes, event_bytes
from perdure_core.workflow_engine.state import RunState
from perdure_schemas import ids, topics
from perdure_schemas.common import Command, Failure, MoveCheck, Query
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message, RunChanged, RunWorkflowTask, WorkflowTaskFailed

CARRIED_BYTES_MAX = 600_000
"""Of events in one message, which bears 1 MB: what is more is read from the committed history."""
ADOPTABLE_BYTES_MAX = 300_000
"""Of commands of dropped turns, beside the events of one message."""
_ADOPTABLE_BYTES = 250
"""One of them without its data."""


def carries(state: RunState) -> bool:
    """Whether one message can carry what no turn has been fed. If not, all of it must be committed first."""
    adoptable = (len(state.orphans) + len(state.unsaid)) * _ADOPTABLE_BYTES
    return adoptable + sum(event_bytes(recorded.event) for recorded in state.unfed) <= CARRIED_BYTES_MAX


def _adoptable(state: RunState) -> list[Command]:
    """Commands of dropped turns. Where their data does not fit, all go without: a worker compares digests, and issues
    a command that it adopts with the data it has itself."""
    known = [*(orphan.command for orphan in state.orphans.values()), *state.unsaid.values()]
    if sum(map(command_bytes, known)) <= ADOPTABLE_BYTES_MAX:
        return known
    return [
        Command(id=old.id, position=old.position, kind=old.kind, name=old.name, digest=old.digest, due_at=old.due_at)
        for old in known
    ]


def workflow_task(state: RunState, committed: int, *, attempt: int = 1, queries: Sequence[Query] = ()) -> Published:
    """A decision turn on everything known; with `queries`, only their answers, on the last turn in force.

    Too many events for a message are left out, and with them what was before: the worker reads the history.
    """
    started, turn = state.started, state.turn
    assert started is not None
    carried = bool(queries) or carries(state)
    assert carried or committed == state.seq, "what is not carried is committed"
    in_force = turn if carried and turn is not None and state.turn_seq > state.rewound_seq else None
    base = turn.base if queries and turn is not None else state.seq
    task = RunWorkflowTask(
        workflow_task_id=ids.workflow_task_id(state.hashes[base], state.generation),
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        name=started.name,
        generation=state.generation,
        attempt=attempt,
        committed=committed,
        base=base,
        base_hash=state.hashes[base],
        hashes=state.hashes[committed + 1 : base + 1],
        previous_hash="" if in_force is None else state.hashes[in_force.base],
        previous_nonce="" if in_force is None else in_force.nonce,
        previous_base=0 if in_force is None else in_force.base,
        events=[] if queries or not carried else list(state.unfed),
        adoptable=_adoptable(state),
        history_length=state.seq,
        build=state.build,
        queries=list(queries),
    )
    identity: list[str | int] = [task.workflow_task_id, attempt, *(query.query_id for query in queries)]
    message = outgoing(state.namespace, state.workflow_id, state.at, task, "workflow-task", *identity)
    return topics.workflow_run(started.name, state.build), message


def unsendable(message: Message, problem: Exception) -> Published | None:
    """If `message` asks for a decision turn and cannot be sent: the turn's failure, so that the run is stuck and tells
    why. A query or a check has somebody who waits for it."""
    task = message.body
    if not isinstance(task, RunWorkflowTask) or task.queries or task.check is not None:
        return None
    failed = WorkflowTaskFailed(
        workflow_id=task.workflow_id,
        run_id=task.run_id,
        workflow_task_id=task.workflow_task_id,
        base=task.base,
        base_hash=task.base_hash,
        generation=task.generation,
        attempt=task.attempt,
        kind="bug",
        failure=Failure(name=type(problem).__name__, message=f"the turn cannot be sent to a worker: {problem}"),
        build=task.build or "",
    )
    identity = (task.workflow_task_id, task.attempt, "unsendable")
    return topics.WORKFLOW_ENGINE, outgoing(message.namespace, task.workflow_id, message.at, failed, *identity)


def replay_check(state: RunState, check: MoveCheck) -> Published:
    """Has a worker of the build replay what is committed. One that knows no checks answers a turn decided long ago."""
    started, turn = state.started, state.turn
    assert started is not None
    assert turn is not None
    base_hash = state.hashes[turn.base]
    task = RunWorkflowTask(
        workflow_task_id=ids.workflow_task_id(base_hash, state.generation),
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        name=started.name,
        generation=state.generation,
        attempt=1,
        committed=check.seq,
        base=turn.base,
        base_hash=base_hash,
        hashes=[],
        history_length=check.seq,
        build=check.build,
        check=check,
    )
    message = outgoing(state.namespace, state.workflow_id, state.at, task, check.question, "check", check.seq)
    return topics.workflow_run(started.name, check.build), message


WAITS_SHOWN_MAX = 20
"""A list shows what a run waits for in a line; more names would not be read."""


WAITS_FOR_WORKER = "worker"
"""What a run waits for while a turn is owed: nothing else has to happen."""


def run_changed(state: RunState, version: int, events: Sequence[Recorded]) -> Published:
    """One commit, for read models and listeners."""
    started = state.started
    assert started is not None
    body = RunChanged(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        name=started.name,
        version=version,
        status=state.status,
        generation=state.generation,
        started_at=state.started_at,
        changed_at=state.at,
        ended_at=state.ended_at if state.ended is not None else None,
        tags=started.options.tags,
        attributes=state.attributes,
        build=state.build,
        parent_workflow_id=started.parent.workflow_id if started.parent is not None else "",
        waits_for=_waits_shown(state),
        last_error=_last_error(state),
        first_seq=events[0].seq if events else state.seq,
    )
    identity = ("run-changed", state.namespace, state.workflow_id, state.run_id, version)
    message = outgoing(state.namespace, state.workflow_id, state.at, body, *identity)
    return topics.WORKFLOW_EVENTS, message


def _waits_shown(state: RunState) -> str:
    """`task charge (3), timer`; a channel as `signal approvals`."""
    if state.needs_turn():
        return WAITS_FOR_WORKER
    if state.ended is not None or state.turn is None:
        return ""
    counts: dict[str, int] = {}
    for command_id in state.waits.open_ids():
        known = state.commands.get(command_id)
        if known is not None and known.settled is None:
            label = f"{known.command.kind} {known.command.name}".strip()
            counts[label] = counts.get(label, 0) + 1
            if len(counts) > WAITS_SHOWN_MAX:
                break
    shown = [label if count == 1 else f"{label} ({count})" for label, count in counts.items()]
    shown += [f"signal {channel}" for channel in state.turn.waits_for.channels[:WAITS_SHOWN_MAX]]
    return ", ".join(shown)


def _last_error(state: RunState) -> str:
    failure = state.ended.failure if state.ended is not None else None
    if state.stuck is not None:
        failure = state.stuck.failure
    if failure is None:
        return ""
    return f"{failure.name}: {failure.message}" if failure.message else failure.name
