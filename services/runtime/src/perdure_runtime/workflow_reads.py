"""What the workflow engine answers from the store, beside its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import msgspec

from perdure_core.blobs import referred
from perdure_core.history import effective
from perdure_core.workflow_engine.decisions import Published
from perdure_core.workflow_engine.effects import effects
from perdure_core.workflow_engine.replies import found_end, reply
from perdure_core.workflow_engine.requests import run_changed
from perdure_core.workflow_engine.rewind import resume_parent
from perdure_core.workflow_engine.start import termination_cause
from perdure_core.workflow_engine.state import RunState, fold
from perdure_runtime.actor import Actor
from perdure_runtime.ports import Routing, RunKey, Store
from perdure_schemas import ids, topics
from perdure_schemas.blobs import Blob
from perdure_schemas.events import Recorded, RunEnded, Started
from perdure_schemas.messages import GetHistory, HistoryPage, Message, ResumeRun, RunPurged, StartWorkflow

HISTORY_PAGE_EVENTS = 1_000
HISTORY_PAGE_BYTES = 600_000
"""A page is one message, of at most 1 MB."""
HISTORY_PAGE_STORED_BYTES = 16 * 1024 * 1024
"""What is stored beside a page and fetched with it: as much as one value may have."""
_SIZER = msgspec.msgpack.Encoder()
"""Another coding than the wire's, faster and a little longer."""
TO_THE_END = 2**62
CAUSED_PAGE_EVENTS = 16
"""Most messages record one event or two; a start that signals overtook records them all."""
EVENTS_MAX = 2**31 - 1
"""No limit: one commit's events are few, and a run to be folded again must be whole."""


async def reemit(
    store: Store, actor: Actor, recorded_at: tuple[str, int], message: Message, *, blobs: list[Blob]
) -> list[Published]:
    """What a message recorded from (run id, seq) on publishes, given the present state, and the answer to it.

    What those events refer to is added to `blobs`: whoever recorded it may not have come to copy it.
    """
    return await _reemit(store, actor, recorded_at, message.id, blobs=blobs, answered=message)


async def _reemit(
    store: Store,
    actor: Actor,
    recorded_at: tuple[str, int],
    cause: str,
    *,
    blobs: list[Blob],
    answered: Message | None = None,
) -> list[Published]:
    key, run_id = actor.key, recorded_at[0]
    state, version = actor.state, actor.head.version
    if run_id != state.run_id:
        history = await store.history(key, run_id, 0, TO_THE_END, EVENTS_MAX)
        if not history:
            return []
        state = fold(key.namespace, key.workflow_id, 1, history)  # its last version is not known: this one is newer
    if state.started is None:
        return []
    caused = await _caused(store, key, recorded_at, cause)
    blobs += referred(caused)
    if any(isinstance(recorded.event, Started) for recorded in caused):
        blobs += referred(list(state.signals.values()))  # with the start were recorded those that had overtaken it
    changed = [run_changed(state, version, caused)] if version else []
    answers = [] if answered is None else reply(state, answered, "ok")
    return [*effects(state, caused), *changed, *answers]


async def _caused(store: Store, key: RunKey, first: tuple[str, int], cause: str) -> list[Recorded]:
    """The events that a message recorded from (run id, seq) on: together, so the rest of the history is not read."""
    run_id, after = first[0], first[1] - 1
    caused: list[Recorded] = []
    while True:
        page = await store.history(key, run_id, after, TO_THE_END, CAUSED_PAGE_EVENTS)
        same = list(takewhile(lambda recorded: recorded.cause == cause, page))
        caused += same
        if len(same) < CAUSED_PAGE_EVENTS:
            return caused
        after = same[-1].seq


async def reemit_termination(store: Store, actor: Actor, message: Message, *, blobs: list[Blob]) -> list[Published]:
    """The effects of the end that a start brought about to make room for its run, or a timer to purge it."""
    cause = termination_cause(message)
    found = await store.find_cause(actor.key, cause) if cause else None
    return [] if found is None else await _reemit(store, actor, found, cause, blobs=blobs)


async def reemit_resume(store: Store, actor: Actor, rewound_seq: int, message: Message) -> list[Published]:
    """The resume of the parent that goes with this one: of the run whose end the rewind at `rewound_seq` undid."""
    body = message.body
    if not isinstance(body, ResumeRun):
        return []
    before = await store.history(actor.key, actor.state.run_id, 0, rewound_seq - 1, EVENTS_MAX)
    ends = [recorded.event for recorded in effective(before) if isinstance(recorded.event, RunEnded)]
    return resume_parent(actor.state, message, body, ends[-1] if ends else None)


async def earlier_end(
    store: Store, actor: Actor, run_id: str, message: Message, *, blobs: list[Blob]
) -> list[Published]:
    """How another run of the workflow id than the current one ended, for whoever waits for it.

    A parent waits for the last of the runs that continued its child.
    """
    recorded_at = await store.find_cause(actor.key, message.id)
    if recorded_at is not None:
        return await reemit(store, actor, recorded_at, message, blobs=blobs)
    run = await _earlier_run(store, actor, run_id)
    while isinstance(message.body, StartWorkflow) and run.ended is not None and run.ended.next_run_id:
        run = await _earlier_run(store, actor, run.ended.next_run_id)
    return found_end(message, run)


async def _earlier_run(store: Store, actor: Actor, run_id: str) -> RunState:
    history = await store.history(actor.key, run_id, 0, TO_THE_END, EVENTS_MAX)
    return fold(actor.key.namespace, actor.key.workflow_id, 1, history)


async def history_page(store: Store, actor: Actor, message: Message) -> Published:
    """One page after the seq asked for; the asker goes on from its end."""
    body = message.body
    assert isinstance(body, GetHistory)
    up_to = body.up_to or actor.committed
    run_id = body.run_id or actor.state.run_id
    found = await store.history(
        actor.key, run_id, body.after_seq, up_to, HISTORY_PAGE_EVENTS, bytes_max=HISTORY_PAGE_BYTES
    )
    events = _page(found)
    page = HistoryPage(
        workflow_id=body.workflow_id, run_id=run_id, events=events, after_seq=body.after_seq, last_seq=up_to
    )
    answer = Message(
        id=ids.derive_id(message.id, "page"),
        namespace=message.namespace,
        key="",
        at=message.at,
        body=page,
        causation_id=message.id,
    )
    return body.reply_topic, answer


def _page(events: Sequence[Recorded]) -> list[Recorded]:
    """As many as fit, at least one: an event is as large as the message that brought it, or a turn's portion."""
    size = stored = 0
    for index, event in enumerate(events):
        size += len(_SIZER.encode(event))
        stored += sum(blob.size for blob in referred(event))
        if (size > HISTORY_PAGE_BYTES or stored > HISTORY_PAGE_STORED_BYTES) and index:
            return list(events[:index])
    return list(events)


def run_purged(actor: Actor, run_id: str, name: str, now: int) -> Published:
    """Tells the read models to forget the run."""
    body = RunPurged(workflow_id=actor.key.workflow_id, run_id=run_id, name=name)
    message = Message(
        id=ids.derive_id(run_id, "purged"),
        namespace=actor.key.namespace,
        key=actor.key.workflow_id,
        at=now,
        body=body,
    )
    return topics.WORKFLOW_EVENTS, message


def route(routing: Routing, workflow_id: str) -> str | None:
    """The build of a new run: the ramping one for its share of workflow ids."""
    if routing.ramping is not None and routing.ramping_percent > 0:
        share = int(ids.derive_id("ramp", workflow_id)[:8], 16) % 100
        if share < routing.ramping_percent:
            return routing.ramping
    return routing.current
