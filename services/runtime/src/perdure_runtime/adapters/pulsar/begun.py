"""What user code had begun on when a worker died: the broker's own count of deliveries does not tell.

Workers of a namespace tell each other through one topic: which messages they begin, and which of these they hand back.
A message that comes to a worker though another had begun it, and did not hand it back, has seen that one die. What is
acknowledged never comes again, so nothing is told of it; and what is acknowledged soon was never told of at all.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any, Literal, TypeAlias, cast
from uuid import uuid4

import msgspec
import pulsar
from msgspec import Struct

from perdure_runtime.adapters.pulsar.client import Bridge
from perdure_runtime.adapters.pulsar.names import BEGUN, address
from perdure_runtime.adapters.pulsar.publisher import Producers, to_send
from perdure_runtime.errors import StorageUnavailable

log = logging.getLogger("perdure.broker")

SUSPECT_MS = 15
"""A message this old when it comes may have been somebody else's before: it comes to the next one 20 to 60 ms after a
death, and on an idle cluster to the first within 2 to 5 ms. By the clocks of two machines: where they differ more, more
is told than need be, or a quick first death of a message is missed."""
MARK_AFTER_SECONDS = 0.05
"""What has begun for so long is told of, all that is due in one message: turns and most attempts are over by then."""
KNOWN_MAX = 100_000
"""Messages that have begun and may come again; the oldest are forgotten. At 1,000 long attempts per second: 100 s."""
PATIENCE_SECONDS = 5.0
"""After that a count is taken as it is, and work goes on: the topic cannot be read or written to now."""
_JOIN_SECONDS = 5.0

Place: TypeAlias = tuple[int, int, int]
"""Of a message: its ledger, which no other topic has, its entry, its index in a batch."""


class Firsts:
    """Which messages of one topic cannot have been somebody else's before, though they are old: they had to wait.

    A shared subscription gives its messages out in their order, but for those that come again. So one that lies behind
    another which came here first, and just now, was not given out before that one: nobody had the time to die of it.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Place]] = deque()

    def suspect(self, place: Place, age_ms: int, at: float) -> bool:
        """Whether another may have had it, and died of it.

        Args:
            age_ms: how long ago it was published.
            at: when it came, by the clock of `time.monotonic`.
        """
        recent = self._recent
        while recent and recent[0][0] < at - SUSPECT_MS / 1000:
            recent.popleft()
        if age_ms > SUSPECT_MS and not any(before < place for _, before in recent):
            return True
        recent.append((at, place))
        return False


class _Told(Struct, array_like=True):
    """One message of the topic."""

    worker: str
    what: Literal["begun", "back", "probe"]
    places: list[Place]
    probe: int = 0


class _Topic:
    """Where it is told: all that was ever told is heard first."""

    def __init__(self, client: pulsar.Client, producers: Producers, bridge: Bridge, *, tenant: str, space: str) -> None:
        self._client = client
        self._producers = producers
        self._bridge = bridge
        self._space = space
        self._name = address(tenant, space, BEGUN)
        self._reader: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        """Raises StorageUnavailable: the topic cannot be read now."""
        try:
            reader = await asyncio.to_thread(self._client.create_reader, self._name, pulsar.MessageId.earliest)
        except pulsar.PulsarException as error:
            raise StorageUnavailable(f"Pulsar topic {self._name} cannot be read now: {error}") from error
        self._reader = cast("Any", reader)._reader
        self._thread = threading.Thread(target=self._read, args=(heard,), name=f"pulsar-{BEGUN}", daemon=True)
        self._thread.start()

    def _read(self, heard: Callable[[bytes], None]) -> None:
        while not self._closed:
            try:
                raw = self._reader.read_next()
            except pulsar.PulsarException as error:
                if not self._closed:
                    log.warning("deaths_uncounted", extra={"action": "deaths_uncounted", "error": str(error)})
                return
            self._bridge.call(heard, raw.data())

    async def tell(self, data: bytes) -> None:
        """Returns when it is durable. Raises StorageUnavailable."""
        producer = await self._producers.get(self._space, BEGUN)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answer(result: object) -> None:
            if done.done():
                return
            if result == pulsar.Result.Ok:
                done.set_result(None)
            else:
                done.set_exception(StorageUnavailable(f"Pulsar did not confirm: {result}"))

        try:
            producer.send_async(to_send(data), lambda result, _: self._bridge.call(answer, result))
        except pulsar.PulsarException as error:
            raise StorageUnavailable(f"Pulsar did not confirm: {error}") from error
        await done

    def close(self) -> None:
        """Blocking."""
        self._closed = True
        if self._thread is None:
            return
        try:
            self._reader.close()
        except pulsar.PulsarException:
            pass  # the broker is away
        self._thread.join(_JOIN_SECONDS)


class Begun:
    """Of one namespace, in one process. Made inside a running loop, used from it alone."""

    def __init__(self, client: pulsar.Client, producers: Producers, bridge: Bridge, *, tenant: str, space: str) -> None:
        self._topic = _Topic(client, producers, bridge, tenant=tenant, space=space)
        self._loop = asyncio.get_running_loop()
        self._me = uuid4().hex[:16]
        self._known: dict[Place, set[str]] = {}
        """Who began what and did not hand it back: the others."""
        self._marked: set[Place] = set()
        """What we told that we had begun."""
        self._young: dict[Place, float] = {}
        """What we have begun and did not tell, oldest first, and since when."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._probes: dict[int, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Returns when all that was told before is known.

        Raises:
            StorageUnavailable: the topic cannot be read now.
        """
        await self._topic.listen(self._heard)
        await self.catch_up()

    async def close(self) -> None:
        """After the consumers, which hand back."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._topic.close)

    # --- what others told ---------------------------------------------------------------------------

    def deaths(self, place: Place) -> int:
        """How many others began it and are gone without handing it back, as far as is known."""
        return len(self._known.get(place, ()))

    async def catch_up(self) -> None:
        """Until all is known that was told before: what is handed back comes faster than the word of it may."""
        number = next(self._numbers)
        seen = self._probes[number] = self._loop.create_future()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._tell("probe", (), number)
                await seen
        except (TimeoutError, StorageUnavailable) as error:
            log.warning("deaths_uncounted", extra={"action": "deaths_uncounted", "error": str(error)})
        finally:
            del self._probes[number]

    def _heard(self, data: bytes) -> None:
        try:
            told = msgspec.msgpack.decode(data, type=_Told)
        except msgspec.MsgspecError:
            return  # of a later release, which tells something else
        if told.worker == self._me:
            if told.probe in self._probes and not self._probes[told.probe].done():
                self._probes[told.probe].set_result(None)
        elif told.what == "begun":
            for place in told.places:
                self._known.setdefault(place, set()).add(told.worker)
            while len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        elif told.what == "back":
            for place in told.places:
                self._forget(place, told.worker)

    def _forget(self, place: Place, worker: str) -> None:
        workers = self._known.get(place)
        if workers is not None:
            workers.discard(worker)
            if not workers:
                del self._known[place]

    # --- what we tell -------------------------------------------------------------------------------

    def begin(self, places: Iterable[tuple[Place, bool]]) -> Awaitable[None] | None:
        """(place, whether it is suspect) pairs: suspects have begun when what is returned is done."""
        suspects = []
        now = self._loop.time()
        for place, suspect in places:
            if suspect:
                suspects.append(place)
            elif place not in self._marked:
                self._young.setdefault(place, now)
        if self._young and self._timer is None:
            self._timer = self._loop.call_later(MARK_AFTER_SECONDS, self._tell_old)
        return self._mark(suspects) if suspects else None

    def settled(self, places: Iterable[Place]) -> None:
        """They are acknowledged."""
        for place in places:
            self._young.pop(place, None)
            self._marked.discard(place)

    def back(self, places: Sequence[Place]) -> Awaitable[None] | None:
        """They are handed back, or do not count: known to all when what is returned is done."""
        told = [place for place in places if place in self._marked]
        self.settled(places)
        return self._start(self._try_to_tell("back", told)) if told else None

    def _tell_old(self) -> None:
        self._timer = None
        before = self._loop.time() - MARK_AFTER_SECONDS
        old = []
        for place, since in self._young.items():
            if since > before:
                self._timer = self._loop.call_at(since + MARK_AFTER_SECONDS, self._tell_old)
                break
            old.append(place)
        for place in old:
            del self._young[place]
        if old:
            self._mark(old)

    def _mark(self, places: Sequence[Place]) -> asyncio.Task[None]:
        self._marked.update(places)
        return self._start(self._try_to_tell("begun", places))

    async def _try_to_tell(self, what: Literal["begun", "back"], places: Sequence[Place]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._tell(what, places)
        except (TimeoutError, StorageUnavailable) as error:
            log.warning("deaths_uncounted", extra={"action": "deaths_uncounted", "error": str(error)})

    async def _tell(self, what: Literal["begun", "back", "probe"], places: Sequence[Place], probe: int = 0) -> None:
        await self._topic.tell(msgspec.msgpack.encode(_Told(self._me, what, list(places), probe)))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def now_ms() -> int:
    """As brokers and producers tell the time of a message: by the wall."""
    return int(time.time() * 1000)
