"""What the engine asks of workers, and what it tells the read models."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.outgoing import outgoing
from perdure_core.workflow_engine.state import RunState
from perdure_schemas import ids, topics
from perdure_schemas.common import Query
from perdure_schemas.events import Recorded
from perdure_schemas.messages import RunChanged, RunWorkflowTask


def workflow_task(state: RunState, committed: int, *, attempt: int = 1, queries: Sequence[Query] = ()) -> Published:
    """A decision turn on everything known; with `queries`, only their answers, on the last turn in force."""
    started, turn = state.started, state.turn
    assert started is not None
    in_force = turn if turn is not None and state.turn_seq > state.rewound_seq else None
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
        events=[] if queries else list(state.unfed),
        adoptable=[*(orphan.command for orphan in state.orphans.values()), *state.unsaid.values()],
        history_length=state.seq,
        build=state.build,
        queries=list(queries),
    )
    identity: list[str | int] = [task.workflow_task_id, attempt, *(query.query_id for query in queries)]
    message = outgoing(state.namespace, state.workflow_id, state.at, task, "workflow-task", *identity)
    return topics.workflow_run(started.name, state.build), message


WAITS_SHOWN_MAX = 20
"""A list shows what a run waits for in a line; more names would not be read."""


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
    return "" if failure is None else f"{failure.name}: {failure.message}"
