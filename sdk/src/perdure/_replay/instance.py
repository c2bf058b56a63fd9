"""One live run: its loop, its object, and the turns it has done.

A turn applies one event, drains, then takes the next, live and in replay alike, so the result does not depend on how
the engine cut events into turns.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from perdure._replay import compat
from perdure._replay.code import RunContext, Stoppage, Turn, WorkflowCode
from perdure._replay.futures import Branch, Path
from perdure._replay.loop import ReplayLoop, Timer
from perdure._replay.outcomes import error_of
from perdure.errors import (
    Blocked,
    CommandFailed,
    ContinueAsNew,
    WorkflowChangedError,
    WorkflowError,
)
from perdure_schemas.common import Command, Completion, Failure, Payload, WaitsFor
from perdure_schemas.common import ContinueAsNew as NextRun
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

    def __init__(self, code: WorkflowCode, context: RunContext) -> None:
        self.code = code
        self.context = context
        self.loop = ReplayLoop(context, match_args=code.match == "args", failure=code.failure)
        self.base_hash = ""
        """Chain hash of the last event it was fed."""
        self.nonce = ""
        """Message id of its last turn's result."""
        self.completed: WorkflowTaskCompleted | None = None
        """Its last turn's result, to be published again if the same turn is asked for."""
        self.stoppage: Stoppage | None = None
        self.completion: Completion | None = None
        self._object: Any = None
        self._main: Branch[Any] | None = None
        self._fed = 0
        self._unfed: list[Recorded] = []
        self._cancel_requested = False
        self._data_bytes = 0

    def remember(self, base_hash: str, nonce: str, completed: WorkflowTaskCompleted) -> None:
        """What it holds from now on: the history up to `base_hash`, decided by the turn with this nonce."""
        self.base_hash = base_hash
        self.nonce = nonce
        self.completed = completed

    @property
    def size_bytes(self) -> int:
        """An estimate of the memory it holds, user data included."""
        loop = self.loop
        return _BASE_BYTES + _BRANCH_BYTES * len(loop.branches) + _PENDING_BYTES * len(loop.pending) + self._data_bytes

    # --- turns --------------------------------------------------------------------------------------

    def replay(self, records: Sequence[Recorded]) -> None:
        """Rebuild from the committed history in force. What goes wrong is told by the next turn.

        Each recorded turn is fed what it had been fed, and must issue again what it had issued.
        """
        loop = self.loop
        turns = [record.event for record in records if isinstance(record.event, TurnCommitted)]
        for turn in turns:
            loop.record.load(turn.commands)
            loop.recorded_patches.update(turn.patches)
        loop.replaying = True
        state = self._enter()
        try:
            queue = self._unfed
            for record in records:
                if not isinstance(record.event, TurnCommitted):
                    queue.append(record)
                    continue
                queue = self._feed_until(queue, record.event.base)
                if self.stoppage is None:
                    self._check_issued(record.event.commands)
                if self.stoppage is not None:
                    break
            self._unfed = queue
        finally:
            self._leave(state)
            loop.replaying = False
        loop.waits.resend()

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
        state = self._enter()
        try:
            if self.stoppage is None:
                self._unfed = self._feed_until(queue, base)
        finally:
            self._leave(state)
        return self._take()

    def _feed_until(self, queue: list[Recorded], base: int) -> list[Recorded]:
        """Feed in order what lies at or before `base`; the rest comes later."""
        for index, record in enumerate(queue):
            if record.seq > base:
                return queue[index:]
            self._fed = record.seq
            if self.completion is None and self.stoppage is None:
                self._step(record)
            elif isinstance(record.event, SignalReceived):
                self._missed(record)
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
            self._conclude()

    def _check_issued(self, commands: Sequence[Command]) -> None:
        try:
            self.loop.record.check_issued(commands)
        except WorkflowChangedError as error:
            self._stop(error)

    # --- events -------------------------------------------------------------------------------------

    def _apply(self, record: Recorded) -> None:
        event = record.event
        match event:
            case CommandSettled():
                self._settle(event)
            case Started():
                self._object = self.code.create()
                self._main = self.loop.spawn(self.code.main(self._object, event.args), Path(""))
                self._data_bytes += len(event.args.data)
            case SignalReceived():
                self._data_bytes += len(event.payload.data)
                self.loop.mailbox(event.channel).put(record.seq, event.payload)
            case UpdateReceived():
                self.loop.spawn(self._update(event), Path(f"u.{event.update_id}"))
            case CancelRequested():
                self._cancel_requested = True
                if self._main is not None:
                    self._main.cancel(event.reason)
            case _:  # what concerns the engine alone
                pass

    def _settle(self, event: CommandSettled) -> None:
        waiting = self.loop.pending.pop(event.command_id, None)
        if waiting is None:
            return
        self.loop.waits.remove(event.command_id)
        if isinstance(waiting, Timer):
            self.loop.fire(waiting)
            return
        if event.outcome in ("completed", "skipped"):
            try:
                value = waiting._decode(event.result) if waiting._decode is not None else None
            except Exception as error:
                waiting.set_exception(error)
                return
            if event.result is not None:
                self._data_bytes += len(event.result.data)
            waiting.set_result(value)
        elif event.outcome == "fired":
            waiting.set_result(None)
        else:
            waiting.set_exception(error_of(event, waiting.kind, waiting.name))

    async def _update(self, event: UpdateReceived) -> None:
        try:
            result = await self.code.update(self._object, event.name, event.args)
        except Exception as error:  # whoever sent it gets it; a bad update must not wedge the run
            self.loop.complete_update(event, None, self.code.failure(error))
        else:
            self.loop.complete_update(event, result)

    def _missed(self, record: Recorded) -> None:
        """A signal after the code's end, in the same turn: it moves on to the next run, if there is one."""
        completion = self.completion
        if completion is not None and completion.next_run is not None:
            completion.next_run.unreceived.append(record.seq)

    # --- how it ends --------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """After a drain: whether the run has ended, and how."""
        loop = self.loop
        if loop.fault is not None:
            self._stop(loop.fault)
            return
        for branch in loop.failed:
            error = compat.exception(branch)
            if isinstance(error, ContinueAsNew):
                self._end(error)
                return
        main = self._main
        loop.failed = [branch for branch in loop.failed if branch is not main and compat.unseen(branch)]
        if main is None or not main.done():
            if loop.failed and not loop.pending and not any(box.awaited for box in loop.mailboxes.values()):
                self._end(compat.exception(loop.failed[0]))  # nothing else can happen: it is what went wrong
            return
        if main.cancelled():
            self._end(asyncio.CancelledError())
            return
        error = main.exception()
        if error is None and loop.failed:
            error = compat.exception(loop.failed[0])  # a failure nobody looked at is not a success
        if error is not None:
            self._end(error)
            return
        try:
            self.completion = Completion(status="completed", result=self.code.encode_result(main.result()))
        except Exception as unserializable:
            self._stop(unserializable)

    def _end(self, error: BaseException | None) -> None:
        match error:
            case ContinueAsNew():
                unreceived = sorted(seq for box in self.loop.mailboxes.values() for seq in box.unreceived)
                next_run = NextRun(
                    name=error.name, args=error.payload, build_policy=error.build_policy, unreceived=unreceived
                )
                self.completion = Completion(status="continued-as-new", next_run=next_run)
            case asyncio.CancelledError() if self._cancel_requested:
                self.completion = Completion(status="canceled")
            case WorkflowError():
                id = error.id if isinstance(error, CommandFailed) else ""
                self.completion = Completion(status="failed", failure=self.code.failure(error), command_id=id)
            case None:
                pass
            case _:
                self._stop(error)

    def _stop(self, error: BaseException) -> None:
        match error:
            case WorkflowChangedError():
                self.stoppage = Stoppage("changed", self._failure(error))
            case Blocked():
                self.stoppage = Stoppage("timeout", self._failure(error))
            case _:
                self.stoppage = Stoppage("bug", self._failure(error))

    def _failure(self, error: BaseException) -> Failure:
        failure = self.code.failure(error)
        error.__traceback__ = None  # it is text now, and pins every frame
        return failure

    def _take(self) -> Turn:
        loop = self.loop
        if self.stoppage is not None:
            self.evict()
            return Turn(stoppage=self.stoppage)
        commands, loop.out = loop.out, []
        patches, loop.patches = loop.patches, []
        if self.completion is not None:
            self.evict()
            return Turn(commands, WaitsFor(), self.completion, patches)
        channels = [name for name, box in loop.mailboxes.items() if box.awaited]
        waits_for = loop.waits.report()
        if channels:
            waits_for = WaitsFor(waits_for.groups, channels)
        return Turn(commands, waits_for, None, patches)

    # --- reads and the end --------------------------------------------------------------------------

    def query(self, name: str, args: Payload) -> Payload:
        """Answer from the state after the last turn. What the query raises comes out."""
        loop = self.loop
        state = self._enter()
        loop.querying = True
        try:
            return self.code.query(self._object, name, args)
        finally:
            loop.querying = False
            loop.fault = None
            self._leave(state)

    def evict(self) -> None:
        """Close it. The object stays for queries of an ended run; no command can come out of anything any more."""
        hook, sys.unraisablehook = sys.unraisablehook, _ignore
        state = self._enter()
        try:
            self.loop.close_all()
            self._main = None
        finally:
            self._leave(state)
            sys.unraisablehook = hook

    def _enter(self) -> compat.Outer:
        gc.disable()  # no finalizer runs in the midst of workflow code
        return self.loop.enter()

    def _leave(self, state: compat.Outer) -> None:
        compat.leave(state)
        gc.enable()


def _ignore(_: Any) -> None:
    """While frames are closed, "coroutine ignored GeneratorExit" is expected."""
