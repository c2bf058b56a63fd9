"""What must hold of every schedule. Each checker reads the world and its ledger, and names what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perdure_schemas.events import Rewound, RunEnded, Started
from perdure_schemas.messages import StartWorkflow
from tests.simulation.world import World

Checker = Callable[[World], Iterator[str]]


def one_terminal_state(world: World) -> Iterator[str]:
    """Every run ends once per generation, and ends in the last."""
    for run in world.ledger.runs.values():
        if not run.run_id:
            continue
        ends = 0
        for recorded in run.events:
            if isinstance(recorded.event, RunEnded):
                ends += 1
                if ends > 1:
                    yield f"run {run.workflow_id} ended twice: at {recorded.seq} again"
            elif isinstance(recorded.event, Rewound):
                ends = 0
        if ends == 0:
            yield f"run {run.workflow_id} never ended"


def acknowledged_starts(world: World) -> Iterator[str]:
    """A start that the broker took is recorded, or answered to be a repetition or in conflict."""
    ledger = world.ledger
    started = {r.event.run_id for run in ledger.runs.values() for r in run.events if isinstance(r.event, Started)}
    others = {run.workflow_id for run in ledger.runs.values() if run.run_id}
    for message in ledger.acknowledged:
        body = message.body
        if isinstance(body, StartWorkflow) and body.run_id not in started and body.workflow_id not in others:
            yield f"start of {body.workflow_id} was acknowledged and is lost"


CHECKERS: tuple[Checker, ...] = (one_terminal_state, acknowledged_starts)
