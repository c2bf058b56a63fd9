"""Timers by shard and minute, read in due order from a mark, and dropped a minute at a time.

A shard has one owner at a time, by a lease: the mark moves, and minutes go, only by compare and set on the owner. Who
lost a shard without noticing can fire timers twice, which harms nobody, but can neither skip nor lose one: what it
stored it checks against the owner before it says so.

Nothing stays behind: rows are written as of the moment at which their minute was chosen, so that those which arrive
after the minute was dropped, from an owner that was frozen or a write in doubt, are covered by its tombstone. And a
minute is dropped before it is forgotten: whoever dies in between leaves it to be dropped again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Clock
from perdure_schemas.codec import decode_timer, encode_timer
from perdure_schemas.messages import CancelTimer, ScheduleTimer

LEASE_MS = 10_000
"""An owner that died is succeeded after this time, or at once when its successor is given something to store."""
_RENEW_MS = 5_000
"""Before the end of a lease it is renewed."""
_MINUTE_MS = 60_000
_KEEP_MS = 60_000
"""A minute is dropped so long after it is over: nobody chooses it for a timer then, by any replica's clock."""
_FAR_MS = 25 * 3_600_000
"""A canceled timer that is due later is deleted; of one that is due sooner the row is passed over, and goes with its
minute. A minute's readers would pass over tombstones instead of rows, and Cassandra refuses to pass over 100,000: those
of today are gone, a day and an hour from now (gc_grace_seconds)."""
_LATEST_MAX = 100_000
"""Timers whose place is remembered. Of a forgotten one that was stored again or canceled, the old row fires too, to no
harm."""
_BATCH = 50
"""Rows of one minute written together."""

_OWNER = "SELECT owner, until FROM timer_minutes WHERE namespace = ? AND shard = ? LIMIT 1"
_CLAIM = "UPDATE timer_minutes SET owner = ?, until = ? WHERE namespace = ? AND shard = ? IF owner = ? AND until = ?"
_MINUTES = "SELECT minute, mark_at, mark_id FROM timer_minutes WHERE namespace = ? AND shard = ?"
_NOTE = "UPDATE timer_minutes SET noted = true WHERE namespace = ? AND shard = ? AND minute = ? IF owner = ?"
_MARK = (
    "UPDATE timer_minutes SET mark_at = ?, mark_id = ? WHERE namespace = ? AND shard = ? AND minute = ? IF owner = ?"
)
_FORGET = (
    "UPDATE timer_minutes SET noted = null, mark_at = null, mark_id = null "
    "WHERE namespace = ? AND shard = ? AND minute = ? IF owner = ?"
)
_PUT = (
    "INSERT INTO timers (namespace, shard, minute, fire_at, timer_id, data) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
)
_DELETE = "DELETE FROM timers WHERE namespace = ? AND shard = ? AND minute = ? AND fire_at = ? AND timer_id = ?"
_READ = (
    "SELECT fire_at, timer_id, data FROM timers WHERE namespace = ? AND shard = ? AND minute = ? "
    "AND (fire_at, timer_id) > (?, ?) LIMIT ?"
)
_DROP = "DELETE FROM timers WHERE namespace = ? AND shard = ? AND minute = ?"

_Place = tuple[int, int, str]
"""Minute, time to fire, and timer id: where a timer lies."""


@dataclass(slots=True)
class _Shard:
    """What its owner knows of a shard."""

    until: int
    """The end of the lease."""
    marks: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Of each minute that is there: the last timer of it that is done with."""
    given: list[_Place] = field(default_factory=list)
    """What `due` read last, in order."""
    latest: OrderedDict[str, _Place | None] = field(default_factory=OrderedDict)
    """Of timers that were stored, canceled or fired lately: where the one lies that counts. Rows elsewhere are over."""

    def note(self, timer_id: str, place: _Place | None) -> None:
        self.latest[timer_id] = place
        self.latest.move_to_end(timer_id)
        if len(self.latest) > _LATEST_MAX:
            self.latest.popitem(last=False)

    def over(self, place: _Place) -> bool:
        return self.latest.get(place[2], place) != place


class CassandraTimers:
    def __init__(self, connection: Connection, clock: Clock, owner: str) -> None:
        self._connection = connection
        self._clock = clock
        self._owner = owner
        self._owned: dict[tuple[str, int], _Shard] = {}

    async def put(self, namespace: str, shard: int, timers: Sequence[ScheduleTimer]) -> None:
        """Who is given timers is the shard's owner by the broker's will: it takes the shard if it does not have it."""
        chosen_us = time.time_ns() // 1000  # the driver's clock, by which minutes are dropped
        state = await self._own(namespace, shard, steal=True)
        assert state is not None
        now = self._clock.now()
        rows = [_place(state, timer, now) for timer in timers]
        for minute in {minute for minute, _, _ in rows} - state.marks.keys():
            if not await self._connection.decide(_NOTE, namespace, shard, minute, self._owner):
                self._lost(namespace, shard)
            state.marks[minute] = (0, "")
        await self._write(
            (place[0], (_PUT, (namespace, shard, *place, encode_timer(timer), chosen_us)))
            for place, timer in zip(rows, timers, strict=True)
        )
        owner, _ = await self._owner_of(namespace, shard, serial=False)
        if owner != self._owner:
            self._lost(namespace, shard)
        for place in rows:
            state.note(place[2], place)

    async def remove(self, namespace: str, shard: int, timer_ids: Sequence[str]) -> None:
        """Those that `due` returned move the mark; rows of others are passed over when their time comes."""
        state = self._owned.get((namespace, shard))
        if state is None:
            return
        for timer_id in timer_ids:
            state.note(timer_id, None)
        await self._pass(namespace, shard, state)

    async def cancel(self, namespace: str, shard: int, timers: Sequence[CancelTimer]) -> None:
        """A minute that has no timer any more stays noted until it is over: it costs a row."""
        await self.remove(namespace, shard, [timer.timer_id for timer in timers])
        far = [timer for timer in timers if timer.due_at > self._clock.now() + _FAR_MS]
        places = [(timer.due_at // _MINUTE_MS, timer.due_at, timer.timer_id) for timer in far]
        await self._write((place[0], (_DELETE, (namespace, shard, *place))) for place in places)

    async def _write(self, writes: Iterable[tuple[int, tuple[str, Sequence[object]]]]) -> None:
        """Each with its minute: those of one go together, some at a time."""
        of_minute: dict[int, list[tuple[str, Sequence[object]]]] = {}
        for minute, write in writes:
            of_minute.setdefault(minute, []).append(write)
        for together in of_minute.values():
            for start in range(0, len(together), _BATCH):
                await self._connection.write_together(together[start : start + _BATCH])

    async def _pass(self, namespace: str, shard: int, state: _Shard) -> None:
        """Move the marks over what is over, up to the first that is not."""
        marks = dict[int, tuple[int, str]]()
        while state.given and state.over(state.given[0]):
            minute, fire_at, timer_id = state.given.pop(0)
            marks[minute] = (fire_at, timer_id)
        for minute, mark in marks.items():
            if not await self._connection.decide(_MARK, *mark, namespace, shard, minute, self._owner):
                self._owned.pop((namespace, shard), None)
                return
            state.marks[minute] = mark

    async def due(self, namespace: str, shard: int, until: int, limit: int) -> Sequence[ScheduleTimer]:
        while True:
            state = await self._own(namespace, shard)
            if state is None:
                return []
            rows = await self._until(namespace, shard, until, limit)
            state.given = [place for place, _ in rows]
            found = [decode_timer(data) for place, data in rows if not state.over(place)]
            if found or not rows:
                return found
            await self._pass(namespace, shard, state)

    async def _until(self, namespace: str, shard: int, until: int, limit: int) -> list[tuple[_Place, bytes]]:
        """What lies after the marks up to a time; minutes that are long over and have nothing more are dropped."""
        state = self._owned[namespace, shard]
        found: list[tuple[_Place, bytes]] = []
        for minute in sorted(state.marks):
            if minute * _MINUTE_MS > until or len(found) >= limit:
                break
            rows = await self._after_mark(namespace, shard, minute, limit - len(found))
            if not rows and (minute + 1) * _MINUTE_MS + _KEEP_MS < until:
                await self._drop(namespace, shard, minute)
            found += [((minute, fire_at, timer_id), data) for fire_at, timer_id, data in rows if fire_at <= until]
        return found

    async def next_due(self, namespace: str, shard: int) -> int | None:
        """When to look again: at the latest when the lease is to be renewed, or may be taken over."""
        now = self._clock.now()
        state = await self._own(namespace, shard)
        if state is None:
            return max(now + 1, (await self._owner_of(namespace, shard))[1])
        again = now + _RENEW_MS
        for minute in sorted(state.marks):
            if minute * _MINUTE_MS > again:
                break
            rows = await self._after_mark(namespace, shard, minute, 1)
            if rows:
                return min(rows[0][0], again)
        return again

    # -- ownership ---------------------------------------------------------------------------------

    async def _own(self, namespace: str, shard: int, steal: bool = False) -> _Shard | None:
        """The shard, if it is ours or free; with `steal` in any case."""
        now = self._clock.now()
        state = self._owned.get((namespace, shard))
        if state is not None and state.until - now > _RENEW_MS:
            return state
        while True:
            owner, until = await self._owner_of(namespace, shard)
            if owner not in ("", self._owner) and until > now and not steal:
                self._owned.pop((namespace, shard), None)
                return None
            if owner != self._owner:  # should the claim be in doubt and turn out to be ours, nothing known is true
                self._owned.pop((namespace, shard), None)
                state = None
            mine = now + LEASE_MS
            before = (owner or None, until or None)
            if await self._connection.decide(_CLAIM, self._owner, mine, namespace, shard, *before):
                break
        if state is None:
            rows = await self._connection.rows(_MINUTES, namespace, shard, serial=True)
            marks = {minute: (mark_at or 0, mark_id or "") for minute, mark_at, mark_id in rows if minute is not None}
            state = self._owned[namespace, shard] = _Shard(mine, marks)
        state.until = mine
        return state

    async def _owner_of(self, namespace: str, shard: int, *, serial: bool = True) -> tuple[str, int]:
        """Not `serial`: but for a claim in doubt. Whose claim that is reads the shard when it is not any more, and then
        sees all that was stored before this read."""
        rows = await self._connection.rows(_OWNER, namespace, shard, serial=serial)
        return (rows[0][0] or "", rows[0][1] or 0) if rows else ("", 0)

    def _lost(self, namespace: str, shard: int) -> None:
        self._owned.pop((namespace, shard), None)
        raise StorageUnavailable(f"timer shard {shard} went to another replica")

    # -- minutes -----------------------------------------------------------------------------------

    async def _after_mark(self, namespace: str, shard: int, minute: int, limit: int) -> list[tuple[int, str, bytes]]:
        mark = self._owned[namespace, shard].marks[minute]
        rows = await self._connection.rows(_READ, namespace, shard, minute, *mark, limit)
        return [(fire_at, timer_id, data) for fire_at, timer_id, data in rows]

    async def _drop(self, namespace: str, shard: int, minute: int) -> None:
        """Who is not the owner any more may do so too: there is nothing more in it, and nothing will be."""
        await self._connection.write(_DROP, namespace, shard, minute)
        if not await self._connection.decide(_FORGET, namespace, shard, minute, self._owner):
            self._lost(namespace, shard)
        del self._owned[namespace, shard].marks[minute]


def _place(state: _Shard, timer: ScheduleTimer, now: int) -> _Place:
    """A timer that comes too late goes to the present minute, after what is done with there."""
    minute = max(timer.due_at, now) // _MINUTE_MS
    mark_at, _ = state.marks.get(minute, (0, ""))
    fire_at = timer.due_at if timer.due_at > mark_at else mark_at + 1
    return minute, fire_at, timer.timer_id
