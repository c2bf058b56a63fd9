"""Bugs, put into the real code while a schedule runs, each breaking one rule of the protocol.

Nothing in the product knows of them. What each breaks, and which checker sees it, is in README.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from perdure._replay.positions import Positions
from perdure._worker.turns import TurnDesk
from perdure_core.workflow_engine import decide, outcomes, signals, start, state, turns
from perdure_core.workflow_engine import decisions as d
from perdure_core.workflow_engine import effects as effects_module
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.replies import reply
from perdure_runtime import workflow_commits, workflow_decider, workflow_slow
from perdure_runtime.adapters.memory.store import MemoryStore
from perdure_runtime.errors import UnknownOutcome
from perdure_runtime.workflow_commits import Commits
from perdure_runtime.workflow_decider import Decider
from perdure_runtime.workflow_driver import Rounds
from perdure_runtime.workflow_views import Views
from perdure_schemas import ids
from perdure_schemas.events import TurnCommitted
from perdure_schemas.messages import GetHistory, QueryRun, RunTask, StartWorkflow, WaitForResult

Mutation = Callable[[ExitStack], None]
"""Applies its patches to a stack."""

MUTATIONS: dict[str, Mutation] = {}


def mutation(make: Mutation) -> Mutation:
    MUTATIONS[make.__name__.replace("_", "-")] = make
    return make


@contextmanager
def applied(name: str) -> Iterator[None]:
    """The code with this bug in it."""
    with ExitStack() as stack:
        MUTATIONS[name](stack)
        yield


def patched_in(stack: ExitStack, target: Any, name: str, replacement: Any) -> None:
    stack.enter_context(patch.object(target, name, replacement))


async def _nothing(*args: Any, **kwargs: Any) -> list[Any]:
    return []


# --- recording and effects (rules 1 to 9) -----------------------------------------------------------


@mutation
def publish_before_commit(stack: ExitStack) -> None:
    make, one = Rounds.__init__, Commits.one

    def init(self: Any, ports: Any, *rest: Any) -> None:
        make(self, ports, *rest)
        self._commits.publisher = self._publisher

    async def early(self: Any, actor: Any, this: Any) -> bool:
        if actor.state.started is not None:
            await self.publisher.publish(effects(actor.state, actor.buffer))
        return await one(self, actor, this)

    patched_in(stack, Rounds, "__init__", init)
    patched_in(stack, Commits, "one", early)


@mutation
def attempts_are_published_twice(stack: ExitStack) -> None:
    def twice(*args: Any) -> list[Any]:
        found = [*effects(*args)]
        return [*found, *(each for each in found if isinstance(each[1].body, RunTask))]

    patched_in(stack, workflow_commits, "effects", twice)


@mutation
def signals_are_told_and_dropped(stack: ExitStack) -> None:
    decide_signal = signals.decide_signal

    def lossy(run: Any, message: Any, body: Any, context: Any) -> Any:
        decision = decide_signal(run, message, body, context)
        if isinstance(decision, d.Record) and run.started is not None and body.number % 2:
            return d.Discard("not-applicable", reply(run, message, "ok"))
        return decision

    patched_in(stack, decide, "decide_signal", lossy)


@mutation
def no_reemission(stack: ExitStack) -> None:
    patched_in(stack, workflow_slow, "reemit", _nothing)
    patched_in(stack, workflow_decider, "reemit", _nothing)


@mutation
def no_compare_and_set(stack: ExitStack) -> None:
    commit = MemoryStore.commit

    async def anyway(self: Any, wanted: Any) -> bool:
        head, _ = await self.load(wanted.key)
        found = {"expected_version": head.version, "expected_run": head.run_id}
        return await commit(self, msgspec.structs.replace(wanted, **found))

    patched_in(stack, MemoryStore, "commit", anyway)


@mutation
def acknowledge_before_effects(stack: ExitStack) -> None:
    one = Commits.one

    async def hasty(self: Any, actor: Any, this: Any) -> bool:
        recorded = await one(self, actor, this)
        acks, this.acks = this.acks, []
        await self._views._intake.ack(acks)
        return recorded

    patched_in(stack, Commits, "one", hasty)


@mutation
def tombstone_before_recorded(stack: ExitStack) -> None:
    """Rule 1: what ended for good is discarded before it is looked for."""
    decided = workflow_decider.decide  # type: ignore[attr-defined]

    def hasty(run: Any, message: Any, body: Any, context: Any) -> Any:
        if run.closed and not isinstance(body, StartWorkflow | QueryRun | WaitForResult | GetHistory):
            return d.Discard("not-applicable")
        return decided(run, message, body, context)

    patched_in(stack, workflow_decider, "decide", hasty)


@mutation
def blind_commits_see_no_traces(stack: ExitStack) -> None:
    record = MemoryStore.commit

    async def commit(self: Any, commit: Any) -> bool:
        return await record(self, msgspec.structs.replace(commit, blind=False))

    patched_in(stack, MemoryStore, "commit", commit)


@mutation
def unknown_taken_as_applied(stack: ExitStack) -> None:
    """Rule 2."""
    make = Commits.__init__

    class Trusting:
        def __init__(self, store: Any) -> None:
            self._store = store

        async def commit(self, commit: Any) -> bool:
            try:
                return bool(await self._store.commit(commit))
            except UnknownOutcome:
                return True

    def init(self: Any, store: Any, *rest: Any) -> None:
        make(self, Trusting(store), *rest)  # type: ignore[arg-type]

    patched_in(stack, Commits, "__init__", init)


@mutation
def stale_view_is_fresh(stack: ExitStack) -> None:
    """Rules 3 and 7: a cached view is taken for one loaded during this handling."""

    async def trusting(self: Any, actors: Any) -> None:
        for actor in actors:
            if not actor.loaded:
                await self._freshen(actor)
            actor.fresh, actor.refresh_due = True, actor.refresh_due and bool(actor.buffer)

    patched_in(stack, Views, "freshen", trusting)


@mutation
def settled_commands_are_published_again(stack: ExitStack) -> None:
    """Rule 4."""

    def any_command(self: Any, command_id: str) -> Any:
        return self.commands.get(command_id)

    patched_in(stack, state.RunState, "open_command", any_command)


@mutation
def recorded_is_forgotten_soon(stack: ExitStack) -> None:
    """Rule 6: only the last three causes are known."""
    chain = state._chain

    def forgetful(run: Any, recorded: Any) -> None:
        chain(run, recorded)
        while len(run.causes) > 3:
            run.causes.pop(next(iter(run.causes)))

    patched_in(stack, state, "_chain", forgetful)


@mutation
def attached_is_acknowledged(stack: ExitStack) -> None:
    """Rule 8: a second delivery of what is buffered is acknowledged before the commit."""
    sort = Decider._sort

    async def hasty(self: Any, *args: Any) -> Any:
        _, delivery, decision, this = args
        if isinstance(decision, d.Attached):
            this.answer(delivery, ())
            return "go on"
        return await sort(self, *args)

    patched_in(stack, Decider, "_sort", hasty)


@mutation
def held_for_ever(stack: ExitStack) -> None:
    """Rule 9: no commit but a turn's."""
    patched_in(stack, Decider, "_arm_flush", lambda self, actor, after_ms: None)


# --- turns (rules 10 to 17) -------------------------------------------------------------------------


@mutation
def plain_sequence_numbers(stack: ExitStack) -> None:
    """Rules 10, 12 and 17: a turn rests on a number, not on a hash and a nonce."""
    patched_in(stack, ids, "chain_start", lambda run_id: "0")
    patched_in(stack, ids, "chain_next", lambda previous, *identity: str(int(previous) + 1))

    def holds(self: Any, instance: Any, task: Any) -> bool:
        return bool(instance.context.generation == task.generation and instance.base_hash == task.previous_hash)

    patched_in(stack, TurnDesk, "_holds", holds)


@mutation
def stale_turn_accepted(stack: ExitStack) -> None:
    """Rule 12: a turn counts if it is of this run and its base is known."""
    unfit = turns._unfit

    def lenient(run: Any, message: Any, body: Any, context: Any) -> Any:
        why = unfit(run, message, body, context)
        stale = isinstance(why, d.Discard) and why.reason in ("decided", "rewound", "diverged")
        return None if stale and run.ended is None and body.base <= run.seq else why

    patched_in(stack, turns, "_unfit", lenient)


@mutation
def later_base_suffices(stack: ExitStack) -> None:
    """Rule 12: a base after that of the last turn suffices, though a turn was recorded after it."""
    unfit = turns._unfit

    def lenient(run: Any, message: Any, body: Any, context: Any) -> Any:
        why = unfit(run, message, body, context)
        decided = isinstance(why, d.Discard) and why.reason == "decided"
        return None if decided and run.ended is None and run.turn is not None and body.base > run.turn.base else why

    patched_in(stack, turns, "_unfit", lenient)


@mutation
def rewind_is_no_barrier(stack: ExitStack) -> None:
    """Rule 12: a turn that began before a rewind counts after it."""
    unfit = turns._unfit

    def lenient(run: Any, message: Any, body: Any, context: Any) -> Any:
        why = unfit(run, message, body, context)
        rewound = isinstance(why, d.Discard) and why.reason == "rewound"
        return None if rewound and run.ended is None else why

    patched_in(stack, turns, "_unfit", lenient)


@mutation
def ahead_is_discarded_and_turns_are_asked_once(stack: ExitStack) -> None:
    """Rules 14 and 15, both off."""
    unfit = turns._unfit

    def strict(run: Any, message: Any, body: Any, context: Any) -> Any:
        why = unfit(run, message, body, context)
        return d.Discard("not-applicable") if isinstance(why, d.Ahead) else why

    publish = Commits._publish

    def once(self: Any, actor: Any, events: Any, this: Any) -> None:
        asked, actor.turn_hash = actor.turn_hash, ""
        publish(self, actor, events, this)
        actor.turn_hash = asked

    patched_in(stack, turns, "_unfit", strict)
    patched_in(stack, Commits, "_publish", once)


@mutation
def base_is_the_end(stack: ExitStack) -> None:
    """Rule 16: a turn is recorded as if it had seen all that stands before it."""
    completed = turns.decide_completed

    def shifted(run: Any, message: Any, body: Any, context: Any) -> Any:
        decision = completed(run, message, body, context)
        if isinstance(decision, d.Record):
            first, *rest = decision.events
            events = [msgspec.structs.replace(first, base=run.seq), *rest]
            return msgspec.structs.replace(decision, events=events)
        return decision

    patched_in(stack, decide, "decide_completed", shifted)


@mutation
def nonce_ignored(stack: ExitStack) -> None:
    """Rule 17: a live instance is known by the hash of its base alone, though another execution was recorded."""

    def holds(self: Any, instance: Any, task: Any) -> bool:
        return bool(instance.context.generation == task.generation and instance.base_hash == task.previous_hash)

    chain = state._chain

    def without_nonce(run: Any, recorded: Any) -> None:
        if isinstance(recorded.event, TurnCommitted):
            recorded = msgspec.structs.replace(recorded, cause="turn")
        chain(run, recorded)

    patched_in(stack, state, "_chain", without_nonce)
    patched_in(stack, TurnDesk, "_holds", holds)


# --- starts and signals (rules 18 to 20) ------------------------------------------------------------


@mutation
def start_acknowledged_at_once(stack: ExitStack) -> None:
    """Rule 18."""
    record = Decider._record

    async def hasty(self: Any, *args: Any) -> Any:
        then = await record(self, *args)
        actor, delivery, decision, this = args
        if decision.begins_run and delivery in actor.held:
            actor.held.remove(delivery)
            this.acks.append(delivery)
        return then

    patched_in(stack, Decider, "_record", hasty)


@mutation
def unborn_discarded(stack: ExitStack) -> None:
    """Rule 19: a signal that overtook its start is unknown."""
    signal = signals.decide_signal

    def strict(run: Any, message: Any, body: Any, context: Any) -> Any:
        if run.started is None:
            return d.Discard("unknown-run")
        return signal(run, message, body, context)

    patched_in(stack, decide, "decide_signal", strict)


@mutation
def an_ended_run_gives_up_its_id(stack: ExitStack) -> None:
    """Reuse policy "never": another run begins all the same."""
    patched_in(stack, start, "may_follow", lambda *of_start: True)


# --- rewinds and ids (rules 29 to 31) ---------------------------------------------------------------


@mutation
def rewind_without_generation(stack: ExitStack) -> None:
    """Rule 30: a command's id does not say how many rewinds came before it."""
    command_id: Any = ids.command_id
    make = Positions.__init__

    def same(*parts: Any) -> Any:
        *of_run, _, position = parts
        return command_id(*of_run, 0, position)

    def init(self: Any, context: Any) -> None:
        make(self, context)
        self._ids = "\x1f".join([context.namespace, context.workflow_id, context.run_id, "0", ""])

    patched_in(stack, ids, "command_id", same)
    patched_in(stack, Positions, "__init__", init)


@mutation
def old_failures_count(stack: ExitStack) -> None:
    """Rule 31: a failure of an attempt made before a rewind is news."""
    first = outcomes.decide_outcome

    def late(run: Any, message: Any, body: Any, context: Any) -> Any:
        return first(run, message, msgspec.structs.replace(body, generation=run.generation), context)

    patched_in(stack, decide, "decide_outcome", late)


@mutation
def children_that_wait_are_forgotten(stack: ExitStack) -> None:
    """A child that waits for the end of one that a rewind dropped is not started after that."""
    for module in (effects_module, outcomes):
        patched_in(stack, module, "starts_after", lambda *_: [])


@mutation
def random_ids(stack: ExitStack) -> None:
    """Ids of what the engine publishes are made up, not derived."""
    rng = random.Random(0)

    class Random:
        command_id = staticmethod(ids.command_id)

        @staticmethod
        def derive_id(*parts: Any) -> str:
            return f"{rng.getrandbits(128):032x}"

        attempt_id = derive_id

    patched_in(stack, effects_module, "ids", Random)


@mutation
def last_turn_need_not_have_seen_all(stack: ExitStack) -> None:
    """Doubt 3: a run ends though a signal came that its last turn had not seen."""
    patched_in(stack, turns, "Refuse", None)
    completed = turns.decide_completed

    def blind(run: Any, message: Any, body: Any, context: Any) -> Any:
        unfed, run.unfed = run.unfed, []
        try:
            return completed(run, message, body, context)
        finally:
            run.unfed = unfed

    patched_in(stack, decide, "decide_completed", blind)
