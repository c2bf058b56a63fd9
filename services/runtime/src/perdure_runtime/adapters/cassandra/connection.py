"""Statements of a cluster as awaitables of one event loop.

The driver answers on a thread of its own; answers are handed over in bunches, one wake-up of the loop per bunch.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from cassandra import ConsistencyLevel, DriverException, RequestExecutionException
from cassandra.cluster import Cluster, NoHostAvailable, Session
from cassandra.connection import ConnectionBusy, ConnectionException
from cassandra.protocol import RequestExecutionException as NotExecuted
from cassandra.protocol import ServerError
from cassandra.query import BatchStatement, BatchType, BoundStatement, SimpleStatement

from perdure_runtime.adapters.cassandra.reaching import open_session, unavailable
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome

_AGAIN_S = 2.0
"""Between two attempts at a new session, while the one that we have reaches nobody."""
_TROUBLE_S = 10.0
"""What such an attempt met is the reason of what fails then, for so long: the next attempt may take five seconds."""
_SCHEMA_SECONDS = 60.0
"""A change of the schema waits until every node agrees: seconds, many on a busy one."""
_TABLE = re.compile(r"\b(FROM|INTO|UPDATE|ALTER TABLE|EXISTS) (\w+)\b(?!\.)")
_ERRORS = (
    *(DriverException, RequestExecutionException, NoHostAvailable),
    *(ConnectionException, ConnectionBusy),
    *(NotExecuted, ServerError),
)
"""All that an outage may raise. A request that is under way while its connection dies fails by one of the second line;
what a node answers that has too much to do, or starts or ends just now, is one of the third: the driver has exceptions
of its own for most of what a node says, but not for that."""
Row = tuple[Any, ...]
Writes = Sequence[tuple[str, Sequence[object]]]
"""Statements with their values."""
Statement: TypeAlias = BoundStatement | BatchStatement | SimpleStatement


class _Answers:
    """Brings what the driver's threads are told to the loop: many answers by one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told: deque[tuple[asyncio.Future[list[Row]], list[Row] | None, BaseException | None]] = deque()
        self._handing_over = threading.Lock()
        self._woken = False

    def rows(self, answer: asyncio.Future[list[Row]]) -> Callable[[Any], None]:
        return lambda rows: self._hand_over(answer, list(rows or ()), None)

    def error(self, answer: asyncio.Future[list[Row]]) -> Callable[[BaseException], None]:
        return lambda error: self._hand_over(answer, None, error)

    def _hand_over(
        self, answer: asyncio.Future[list[Row]], rows: list[Row] | None, error: BaseException | None
    ) -> None:
        """On the driver's thread."""
        self._told.append((answer, rows, error))
        with self._handing_over:
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._take_over)
        except RuntimeError:
            pass  # the loop was closed; nobody waits any more

    def _take_over(self) -> None:
        with self._handing_over:
            self._woken = False
        while self._told:
            answer, rows, error = self._told.popleft()
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(rows or [])


class Connection:
    """One session. Every method is of the loop that made it; prepared statements are kept by their text.

    A session that reaches nobody is replaced, once another can be opened: the driver alone gives up for good when a
    node refuses the credentials, and knows only the addresses that nodes had before.
    """

    def __init__(
        self, settings: CassandraSettings, cluster: Cluster, session: Session, *, keyspace: str | None
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._session = session
        self._opening: asyncio.Task[None] | None = None
        self._trouble: StorageUnavailable | None = None
        """Why no other session could be opened, if the last attempt failed."""
        self._trouble_until = 0.0
        """When that is too old to be the reason of anything."""
        self._keyspace = keyspace
        self._prepared: dict[str, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._answers = _Answers(self._loop)

    async def rows(self, cql: str, *values: object, serial: bool = False, page: int | None = None) -> list[Row]:
        """All rows of a read, of every page.

        Raises:
            StorageUnavailable: not enough nodes answered.
        """
        statement = await self._bound(cql, values)
        if serial:
            statement.consistency_level = ConsistencyLevel.LOCAL_SERIAL
        if page is not None:
            statement.fetch_size = page
        try:
            return await self._execute(statement)
        except _ERRORS as error:
            raise self._unavailable(error) from error

    async def write(self, cql: str, *values: object) -> None:
        """A write that may be repeated.

        Raises:
            StorageUnavailable: it may or may not be stored.
        """
        statement = await self._bound(cql, values)
        try:
            await self._execute(statement)
        except _ERRORS as error:
            raise self._unavailable(error) from error

    async def write_together(self, writes: Writes) -> None:
        """Writes that may be repeated, by one request: of one partition, all or none of them.

        Raises:
            StorageUnavailable: they may or may not be stored.
        """
        batch = BatchStatement(BatchType.UNLOGGED)
        for cql, values in writes:
            batch.add(await self._bound(cql, values))
        try:
            await self._execute(batch)
        except _ERRORS as error:
            raise self._unavailable(error) from error

    async def decide(self, cql: str, *values: object) -> bool:
        """A conditional write; whether its condition held and it is stored.

        Raises:
            UnknownOutcome: it was sent and may be stored, now or later.
            StorageUnavailable: it was not sent.
        """
        return await self._decide(await self._bound(cql, values))

    async def _decide(self, statement: Statement) -> bool:
        try:
            rows = await self._execute(statement)
        except NoHostAvailable as error:
            if not error.errors:
                raise self._unavailable(error) from error
            raise UnknownOutcome(f"conditional write: {self._unavailable(error)}") from error
        except _ERRORS as error:
            raise UnknownOutcome(f"conditional write: {self._unavailable(error)}") from error
        return bool(rows[0][0])

    async def decide_together(self, condition: tuple[str, Sequence[object]], writes: Writes) -> bool:
        """Writes of one partition, all or none, if the condition of the first holds.

        Raises:
            UnknownOutcome: they were sent and may be stored, now or later.
            StorageUnavailable: they were not sent.
        """
        batch = BatchStatement(BatchType.UNLOGGED)
        for cql, values in (condition, *writes):
            batch.add(await self._bound(cql, values))
        return await self._decide(batch)

    async def run(self, cql: str) -> None:
        """A statement about the schema; returns when every node that can be reached agrees.

        Raises:
            StorageUnavailable: it may or may not be done.
        """
        try:
            await self._execute(SimpleStatement(self._qualified(cql)), _SCHEMA_SECONDS)
        except _ERRORS as error:
            raise self._unavailable(error) from error

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opening
        await asyncio.to_thread(self._cluster.shutdown)

    # -- when nobody can be reached ----------------------------------------------------------------

    def _unavailable(self, error: BaseException) -> StorageUnavailable:
        """What to raise. If no node could be asked, another session is tried for, and what that meets is the reason.

        Not where nodes are there and only have too much to do: to open a session is work for them.
        """
        if not isinstance(error, NoHostAvailable):
            return unavailable(error, self._settings)
        if self._opening is None and _reaches_nobody(self._session):
            self._opening = self._loop.create_task(self._open_another())
            self._opening.add_done_callback(self._opened)
        known = self._trouble if self._loop.time() < self._trouble_until else None
        return StorageUnavailable(str(known or unavailable(error, self._settings)))

    def _opened(self, _: asyncio.Task[None]) -> None:
        self._opening = None

    async def _open_another(self) -> None:
        try:
            cluster, session = await open_session(self._settings)
        except StorageUnavailable as error:
            self._trouble, self._trouble_until = error, self._loop.time() + _TROUBLE_S
            await asyncio.sleep(_AGAIN_S)
            return
        self._trouble = None
        if not _reaches_nobody(self._session):  # the driver was faster
            await asyncio.to_thread(cluster.shutdown)
            return
        old, self._cluster, self._session, self._prepared = self._cluster, cluster, session, {}
        await asyncio.to_thread(old.shutdown)

    # ----------------------------------------------------------------------------------------------

    async def _bound(self, cql: str, values: Sequence[object]) -> BoundStatement:
        known = self._prepared
        prepared: Any = known.get(cql)
        if prepared is None:
            try:
                prepared = await asyncio.to_thread(self._session.prepare, self._qualified(cql))
            except _ERRORS as error:
                raise self._unavailable(error) from error
            known[cql] = prepared
        bound: BoundStatement = prepared.bind(values)
        return bound

    def _qualified(self, cql: str) -> str:
        """With the keyspace in front of the table: a statement prepared under USE is ambiguous to a node."""
        return cql if self._keyspace is None else _TABLE.sub(rf"\1 {self._keyspace}.\2", cql, count=1)

    async def _execute(self, statement: Statement, seconds: float | None = None) -> list[Row]:
        other_time: dict[str, Any] = {} if seconds is None else {"timeout": seconds}
        response = self._session.execute_async(statement, **other_time)
        rows: list[Row] = []
        while True:
            answer: asyncio.Future[list[Row]] = self._loop.create_future()
            response.add_callbacks(self._answers.rows(answer), self._answers.error(answer))
            rows += await answer
            if not response.has_more_pages:
                return rows
            response.clear_callbacks()
            response.start_fetching_next_page()


def _reaches_nobody(session: Session) -> bool:
    return not any(pool.host.is_up and not pool.is_shutdown for pool in session.get_pools())


async def connect(settings: CassandraSettings, keyspace: str | None) -> Connection:
    """A session of the cluster, in a keyspace if one is given.

    Raises:
        StorageUnavailable: no node can be reached, or the credentials or the keyspace are wrong.
    """
    return Connection(settings, *await open_session(settings), keyspace=keyspace)
