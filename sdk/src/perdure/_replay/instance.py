"""One live run: its loop, its object, and the turns it has done.

A turn applies one event, drains, then takes the next, live and in replay alike, so the result does not depend on how
the engine cut events into turns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from perdure._replay import stdlib
from perdure._replay.code import RunContext, Stoppage, Turn, WorkflowCode
from perdure._replay.ending import Ending
from perdure._replay.eviction import close_all
from perdure._replay.futures import Branch, Path
from perdure._replay.handles import Timer
from perdure._replay.loop import Entered, ReplayLoop
from perdure._replay.outcomes import DONE, settle
from perdure._replay.portions import AT_ONCE, fits, portion
from perdure._replay.suspended import closing_runs_user_code
from perdure._replay.weight import weight
from perdure_schemas.common import Command, Payload, WaitsFor
from perdure_schemas.events import (
    CancelRequested,
    CommandSettled,
    Recorded,
    SignalReceived,
    Started,
    TurnCommitted,
    UpdateReceived,
)
from perdure_schemas.messages import WorkflowTaskCompleted

_BASE_BYTES = 4_000
"""A minimal live instance takes 3.2 kB."""
_BRANCH_BYTES = 2_000
_PENDING_BYTES = 700


class Instance:
    """A run on this worker. Every method is called on the workflow thread."""

    def __init__(self, code: WorkflowCode, context: RunContext, *, tells_values: bool = True) -> None:
        """`tells_values`: as of its `Record`."""
        stdlib.install()
        self.code = code
        self.context = context
        self.loop = ReplayLoop(context, match_args=code.match == "args", failure=code.failure)
        self.loop.record.tells_values = tells_values
        self.base_hash = ""
        """Chain hash of the last event it was fed."""
        self.nonce = ""
        """Message id of its last turn's result."""
        self.completed: WorkflowTaskCompleted | None = None
        """Its last turn's result, to be published again if the same turn is asked for."""
        self.ending = Ending(code, self.loop)
        self._object: Any = None
        self._main: Branch[Any] | None = None
        self._fed = 0
        self._unfed: list[Recorded] = []
        self._data_bytes = 0

    def remember(self, base_hash: str, nonce: str, completed: WorkflowTaskCompleted) -> None:
        """What it holds from now on: the history up to `base_hash`, decided by the turn with this nonce."""
        self.base_hash = base_hash
        self.nonce = nonce
        self.completed = completed

    @property
    def stoppage(self) -> Stoppage | None:
        """Why the last turn could not be done."""
        return self.ending.stoppage

    @property
    def size_bytes(self) -> int:
        """An estimate of the memory it holds, user data included."""
        loop = self.loop
        return _BASE_BYTES + _BRANCH_BYTES * len(loop.branches) + _PENDING_BYTES * len(loop.pending) + self._data_bytes

    @property
    def eviction_runs_user_code(self) -> bool:
        """Whether it is likely to: `finally` blocks and `except BaseException`, up to their first call of the SDK."""
        loop = self.loop
        return closing_runs_user_code([branch.get_coro() for branch in loop.branches.values()], loop.generators)

    # --- turns --------------------------------------------------------------------------------------

    def replay(self, records: Sequence[Recorded]) -> None:
        """Rebuild from the committed history in force. What goes wrong is told by the next turn.

        Each recorded turn is fed what it had been fed, and must issue again what it had issued.
        """
        loop = self.loop
        turns = [record.event for record in records if isinstance(record.event, TurnCommitted)]
        for turn in turns:
            loop.record.load(turn.commands)
        self.ending.load({turn.python for turn in turns})
        if self.stoppage is not None:
            return
        loop.recorded_patches = frozenset(patch for turn in turns for patch in turn.patches)
        loop.replaying = True
        with Entered(loop):
            queue = self._unfed
            for record in records:
                if not isinstance(record.event, TurnCommitted):
                    queue.append(record)
                    continue
                queue = self._feed_until(queue, record.event.base)
                if self.stoppage is None:
                    self.ending.check_issued(record.event.commands)
                if self.stoppage is not None:
                    break
            self._unfed = queue
        loop.replaying = False

    def turn(
        self, events: Iterable[Recorded], *, base: int, generation: int, adoptable: Sequence[Command] = ()
    ) -> Turn:
        """Feed the events up to `base` that it has not been fed, and take what the code issued."""
        assert generation == self.context.generation, "a rewound run is always rebuilt"
        loop = self.loop
        queue = self._unfed
        last = queue[-1].seq if queue else self._fed
        queue += [record for record in events if record.seq > last]
        if adoptable:
            loop.adopt(adoptable)
        with Entered(self.loop):
            if self.stoppage is None:
                self._unfed = self._feed_until(queue, base)
        return self._take()

    def _feed_until(self, queue: list[Recorded], base: int) -> list[Recorded]:
        """Feed in order what lies at or before `base`; the rest comes later."""
        for index, record in enumerate(queue):
            if record.seq > base:
                return queue[index:]
            self._fed = record.seq
            if self.ending.completion is None and self.stoppage is None:
                self._step(record)
            elif isinstance(record.event, SignalReceived):
                self.ending.miss(record.seq)
        return []

    def _step(self, record: Recorded) -> None:
        loop = self.loop
        loop.now_ms = record.at
        try:
            self._apply(record)
            loop.drain()
        except BaseException as error:  # the watchdog's interrupt may land in our own code too
            loop.noted(error)
        if loop.fault is not None or loop.failed or (self._main is not None and self._main.done()):
            self.ending.conclude(self._main)

    # --- events -------------------------------------------------------------------------------------

    def _apply(self, record: Recorded) -> None:
        event = record.event
        match event:
            case CommandSettled():
                self._settle(event)
            case Started():
                self._object = self.code.create()
                self._main = self.loop.spawn(self.code.main(self._object, event.args), Path(""))
                self._data_bytes += weight(event.args.data)
            case SignalReceived():
                self._data_bytes += weight(event.payload.data)
                self.loop.mailbox(event.channel).put(record.seq, event.payload)
            case UpdateReceived():
                self.loop.spawn(self._update(event), Path(f"u.{event.update_id}"))
            case CancelRequested():
                self.ending.cancel_requested = True
                if self._main is not None:
                    self._main.cancel(event.reason)
            case _:  # what concerns the engine alone
                pass

    def _settle(self, event: CommandSettled) -> None:
        waiting = self.loop.pending.pop(event.command_id, None)
        if waiting is None:
            return  # canceled by the code, or dispatched by an inline function that is not run again
        self.loop.waits.remove(event.command_id)
        if isinstance(waiting, Timer):
            self.loop.ready.append(waiting)
            return
        if event.result is not None:
            self._data_bytes += weight(event.result.data)
        if event.outcome not in DONE:
            self.ending.failed(event.command_id)
        settle(waiting, event)

    async def _update(self, event: UpdateReceived) -> None:
        try:
            result = await self.code.update(self._object, event.name, event.args)
        except Exception as error:  # whoever sent it gets it; a bad update must not wedge the run
            self.loop.complete_update(event, None, self.code.failure(error))
        else:
            self.loop.complete_update(event, result)

    def _take(self) -> Turn:
        loop = self.loop
        if self.stoppage is not None:
            self.evict()
            return Turn(stoppage=self.stoppage)
        commands, loop.out = portion(loop.out)
        patches, loop.patches = loop.patches, []
        if loop.out or (self.ending.completion is not None and not fits(commands, self.ending.completion)):
            loop.waits.resend()  # the engine keeps the groups of the last turn alone
            return Turn(commands, AT_ONCE, None, patches)
        if self.ending.completion is not None:
            self.evict()
            return Turn(commands, WaitsFor(), self.ending.completion, patches)
        channels = [name for name, box in loop.mailboxes.items() if box.awaited]
        waits_for = loop.waits.report()
        if channels:
            waits_for = WaitsFor(waits_for.groups, channels)
        return Turn(commands, waits_for, None, patches)

    # --- reads and the end --------------------------------------------------------------------------

    def query(self, name: str, args: Payload) -> Payload:
        """Answer from the state after the last turn. What the query raises comes out."""
        loop = self.loop
        with Entered(loop):
            loop.querying = True
            try:
                with loop.aside(Path("query")):
                    return self.code.query(self._object, name, args)
            finally:
                loop.querying = False
                loop.fault = None

    def evict(self) -> None:
        """Close it. The object stays for queries of an ended run; no command can come out of anything any more."""
        hook, sys.unraisablehook = sys.unraisablehook, _ignore
        try:
            with Entered(self.loop):
                close_all(self.loop)
                self._main = None
        finally:
            sys.unraisablehook = hook


def _ignore(_: Any) -> None:
    """While frames are closed, "coroutine ignored GeneratorExit" is expected."""
