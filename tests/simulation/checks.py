"""What must hold of every schedule. Each checker reads the world and its ledger, and names what is wrong.

Two more look on while it happens (ledger.py): no RunTask after the outcome of its task was recorded, and nothing done
for a command that no turn has recorded. What is left over is looked for in leftovers.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from perdure._replay.code import RunContext
from perdure._replay.instance import Instance
from perdure_core.history import effective
from perdure_schemas.events import (
    CommandSettled,
    Recorded,
    Rewound,
    RunEnded,
    SignalReceived,
    Started,
    Stuck,
    TurnCommitted,
)
from perdure_schemas.messages import SendSignal, StartWorkflow
from tests.simulation.app import registry
from tests.simulation.client import NAMESPACE
from tests.simulation.ledger import Attempted, Run
from tests.simulation.world import World

DISTURBED_SECONDS = 5.0
"""For so long a fault goes on: what it delayed, or put to sleep, is back by then."""

Checker = Callable[[World], Iterator[str]]

CODES = {name: workflow.code for name, workflow in registry().workflows.items()}


def _runs(world: World) -> list[Run]:
    """Those that started."""
    return [run for run in world.ledger.runs.values() if run.run_id]


def one_terminal_state(world: World) -> Iterator[str]:
    """Every run ends once per generation, and ends in the last. One that failed may be closed for good after that."""
    for run in _runs(world):
        ended: RunEnded | None = None
        for recorded in run.events:
            event = recorded.event
            if isinstance(event, RunEnded):
                if event.final if ended is None else not _closes(event, ended):
                    yield f"terminal: run {run.workflow_id} ended twice, at {recorded.seq} again"
                ended = event
            elif isinstance(event, Rewound):
                ended = None
        if ended is None:
            yield f"terminal: run {run.workflow_id} never ended"


def _closes(event: RunEnded, ended: RunEnded) -> bool:
    """Whether nobody can resume any more what had failed: it is purged, another run follows, or a person ended it."""
    return ended.resumable and (event.final or event.status == "terminated")


def one_chain(world: World) -> Iterator[str]:
    """Commits follow each other without a gap, and so do the events of each run, in time too."""
    for commit in world.ledger.commits:
        head, before = commit.head, commit.before
        if head.version != before.version + 1:
            yield f"chain: version {head.version} of {commit.key.workflow_id}, expected {before.version + 1}"
        begun = head.run_id not in (before.run_id, "")
        if head.runs != before.runs + begun:
            yield f"chain: {head.runs} runs of {commit.key.workflow_id}, expected {before.runs + begun}"
    for run in _runs(world):
        if [recorded.seq for recorded in run.events] != list(range(1, len(run.events) + 1)):
            yield f"chain: the events of run {run.workflow_id} are not numbered in order"
        if any(later.at < earlier.at for earlier, later in zip(run.events, run.events[1:], strict=False)):
            yield f"chain: time goes backwards in run {run.workflow_id}"
        nonces = [r.event.nonce for r in run.events if isinstance(r.event, TurnCommitted)]
        if len(set(nonces)) != len(nonces):
            yield f"chain: run {run.workflow_id} has recorded one execution of a turn twice"


def replay_is_exact(world: World) -> Iterator[str]:
    """Workflow code, fed each recorded turn what it had been fed, issues what was recorded."""
    for run in _runs(world):
        in_force = world.watch.plain(effective(run.events))
        started = in_force[0].event
        if not isinstance(started, Started):
            yield f"replay: the history of run {run.workflow_id} begins with {type(started).__name__}"
            continue
        instance = Instance(CODES[started.name], _context(run, started, in_force))
        try:
            instance.replay(in_force)
            if instance.stoppage is not None:
                failure = instance.stoppage.failure
                yield f"replay: run {run.workflow_id}: {failure.name}: {failure.message}"
        finally:
            instance.evict()


def _context(run: Run, started: Started, events: Sequence[Recorded]) -> RunContext:
    rewinds = [r.event.generation for r in events if isinstance(r.event, Rewound)]
    return RunContext(
        namespace=NAMESPACE,
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        name=started.name,
        started_at=events[0].at,
        tags=tuple(started.options.tags),
        generation=max(rewinds, default=0),
        parent=started.parent,
        build=started.build,
    )


def once_each(world: World) -> Iterator[str]:
    """One outcome per command and generation; each signal once per run; each start once."""
    starts: Counter[str] = Counter()
    for run in _runs(world):
        repeated = Counter(r.event.run_id for r in run.events if isinstance(r.event, Started))
        starts.update(repeated)
        signals = Counter((r.event.sender, r.event.number) for r in run.events if isinstance(r.event, SignalReceived))
        for (sender, number), times in signals.items():
            if times > 1:
                yield f"twice: signal {number} of {sender[:8]} in run {run.workflow_id}"
        yield from _outcomes_twice(run)
    for run_id, times in starts.items():
        if times > 1:
            yield f"twice: start of run {run_id[:8]}"


def _outcomes_twice(run: Run) -> Iterator[str]:
    """What a rewind undid may end again, and be recorded again for the turn that adopts it, also if a later rewind
    undoes that one: every turn was in force when it was committed."""
    settled: set[str] = set()
    for recorded in run.events:
        event = recorded.event
        if isinstance(event, CommandSettled):
            if event.command_id in settled:
                yield f"twice: outcome of command {event.command_id[:8]} in run {run.workflow_id}"
            settled.add(event.command_id)
        elif isinstance(event, TurnCommitted):
            settled -= {command.id for command in event.commands}
        elif isinstance(event, Rewound):
            settled.clear()


def stuck_by_deaths_alone(world: World) -> Iterator[str]:
    """No turn fails but that three workers died with it."""
    for run in _runs(world):
        for recorded in run.events:
            event = recorded.event
            if isinstance(event, Stuck):
                world.ledger.stats["stuck by deaths"] += 1
                if event.kind != "worker-died":
                    yield f"stuck: run {run.workflow_id}, {event.kind}: {event.failure.message}"


def nothing_acknowledged_is_lost(world: World) -> Iterator[str]:
    """A start that the broker took is recorded, or another run of the id is; a signal is recorded, or its run ended
    and nobody was told that it was recorded."""
    ledger = world.ledger
    events = [recorded.event for run in ledger.runs.values() for recorded in run.events]
    started = {event.run_id for event in events if isinstance(event, Started)}
    signals = {(event.sender, event.number) for event in events if isinstance(event, SignalReceived)}
    ids = {run.workflow_id for run in _runs(world)}
    for message in ledger.acknowledged:
        body = message.body
        if isinstance(body, StartWorkflow) and body.run_id not in started and body.workflow_id not in ids:
            yield f"lost: the start of {body.workflow_id}"
        elif isinstance(body, SendSignal) and (body.sender, body.number) not in signals:
            closed = any(r.workflow_id == body.workflow_id and r.closed is not None for r in _runs(world))
            if message.id in ledger.told or not closed:
                yield f"lost: signal {body.number} to {body.workflow_id}"


def outcomes_are_accounted_for(world: World) -> Iterator[str]:
    """What a worker told is recorded, unless its command or run had ended otherwise; nothing else is recorded."""
    runs = {run.run_id: run for run in _runs(world)}
    for outcome in world.ledger.outcomes:
        run = runs.get(outcome.run_id)
        if run is None:
            yield f"lost: an outcome for run {outcome.run_id[:8]}, which nobody has recorded"
        elif outcome.command_id not in run.settled and run.closed is None and outcome.command_id in in_force(run):
            yield f"lost: the outcome of command {outcome.command_id[:8]} in run {run.workflow_id}"
    for run in runs.values():
        settled = {r.event.command_id for r in run.events if isinstance(r.event, CommandSettled)}
        for command_id in settled - set(run.commands):
            yield f"phantom: an outcome of command {command_id[:8]}, which no turn of {run.workflow_id} issued"


def in_force(run: Run) -> set[str]:
    """Ids of the commands that no rewind has undone."""
    turns = [r.event for r in effective(run.events) if isinstance(r.event, TurnCommitted)]
    return {command.id for turn in turns for command in turn.commands}


def double_deliveries_are_excused(world: World) -> Iterator[str]:
    """An attempt is delivered again only if the broker lost a consumer or an acknowledgement, or stored it twice,
    or an engine published it again: after something had gone wrong, or since messages of its run or task had come to
    another replica meanwhile, which cannot know that what it finds recorded was published."""
    for attempt_id, attempt in world.ledger.attempts.items():
        unexcused = attempt.delivered - attempt.redelivered - attempt.duplicated - attempt.published
        if unexcused > 0:
            yield f"double: attempt {attempt_id[:8]} was delivered {unexcused} times too often"
        if attempt.published > 1 and not _excused(world, attempt):
            yield f"double: attempt {attempt_id[:8]} was published {attempt.published} times though nothing had failed"
        if attempt.executed > attempt.delivered:
            yield f"double: attempt {attempt_id[:8]} ran more often than it was delivered"


def _excused(world: World, attempt: Attempted) -> bool:
    """Whether something went wrong between two publishes, or shortly before the first, or two fired one timer then;
    or a key moved between them, which where keys stick to no replica may be shortly before the first, too."""
    first, last = attempt.published_at
    ledger, before = world.ledger, first - DISTURBED_SECONDS
    fired_again = (at for key in attempt.keys for at in ledger.fired_again.get(key, ()))
    if any(before <= at <= last for at in (*ledger.disturbed, *fired_again)):
        return True
    since = before if world.any_engine else first
    return any(since <= at <= last for key in attempt.keys for at in ledger.moved.get(key, ()))


CHECKERS: tuple[Checker, ...] = (
    one_terminal_state,
    one_chain,
    replay_is_exact,
    once_each,
    stuck_by_deaths_alone,
    nothing_acknowledged_is_lost,
    outcomes_are_accounted_for,
    double_deliveries_are_excused,
)
