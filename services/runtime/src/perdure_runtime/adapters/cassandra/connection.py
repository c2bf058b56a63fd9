"""Statements of a cluster as awaitables of one event loop.

The driver answers on a thread of its own; answers are handed over in bunches, one wake-up of the loop per bunch.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from cassandra import ConsistencyLevel, DriverException, RequestExecutionException
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.connection import ConnectionBusy, ConnectionException
from cassandra.io.libevreactor import LibevConnection
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import BatchStatement, BatchType, BoundStatement, SimpleStatement, tuple_factory

from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome

_PROTOCOL = 4
"""Of 5 the driver (3.30) loses what it has of a segment's header when a read ends within it, and then the connection
("CRC mismatch on header"). What 5 adds we do not use: checksums are TLS's, and no statement selects all columns."""
_RECONNECT_S = 0.2
"""A node that comes back is used again at once; the default's back-off doubles up to ten minutes."""
_FOR_EVER: Any = None
"""As the driver says: attempts without end. Its annotations do not know."""
_SCHEMA_SECONDS = 60.0
"""A change of the schema waits until every node agrees: seconds, many on a busy one."""
_TABLE = re.compile(r"\b(FROM|INTO|UPDATE|EXISTS) (\w+)\b(?!\.)")
_ERRORS = (DriverException, RequestExecutionException, NoHostAvailable, ConnectionException, ConnectionBusy)
"""All that an outage may raise. A request that is under way while its connection dies fails by one of the last two."""
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
    """One session. Every method is of the loop that made it; prepared statements are kept by their text."""

    def __init__(self, cluster: Cluster, session: Session, keyspace: str | None) -> None:
        self._cluster = cluster
        self._session = session
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
            raise _unavailable(error) from error

    async def write(self, cql: str, *values: object) -> None:
        """A write that may be repeated.

        Raises:
            StorageUnavailable: it may or may not be stored.
        """
        statement = await self._bound(cql, values)
        try:
            await self._execute(statement)
        except _ERRORS as error:
            raise _unavailable(error) from error

    async def write_together(self, writes: Writes) -> None:
        """Writes of one partition, all or none. They may be repeated.

        Raises:
            StorageUnavailable: they may or may not be stored.
        """
        batch = BatchStatement(BatchType.UNLOGGED)
        for cql, values in writes:
            batch.add(await self._bound(cql, values))
        try:
            await self._execute(batch)
        except _ERRORS as error:
            raise _unavailable(error) from error

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
                raise _unavailable(error) from error
            raise UnknownOutcome(f"conditional write: {error}") from error
        except _ERRORS as error:
            raise UnknownOutcome(f"conditional write: {error}") from error
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
            raise _unavailable(error) from error

    async def close(self) -> None:
        await asyncio.to_thread(self._cluster.shutdown)

    async def _bound(self, cql: str, values: Sequence[object]) -> BoundStatement:
        prepared: Any = self._prepared.get(cql)
        if prepared is None:
            try:
                prepared = await asyncio.to_thread(self._session.prepare, self._qualified(cql))
            except _ERRORS as error:
                raise _unavailable(error) from error
            self._prepared[cql] = prepared
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


async def connect(settings: CassandraSettings, keyspace: str | None) -> Connection:
    """A session of the cluster, in a keyspace if one is given.

    Raises:
        StorageUnavailable: no node can be reached, or the credentials or the keyspace are wrong.
    """
    cluster = _cluster(settings)
    try:
        session = await asyncio.to_thread(cluster.connect)
    except Exception as error:  # the driver raises many kinds here, some of them bare
        await asyncio.to_thread(cluster.shutdown)
        raise _unavailable(error) from error
    return Connection(cluster, session, keyspace)


def _cluster(settings: CassandraSettings) -> Cluster:
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(settings.datacenter)),
        retry_policy=FallthroughRetryPolicy(),  # a conditional write must never be sent twice behind our back
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=settings.request_timeout_s,
        row_factory=tuple_factory,
    )
    auth = PlainTextAuthProvider(settings.username, settings.password) if settings.username else None
    return Cluster(
        list(settings.hosts),
        port=settings.port,
        connection_class=LibevConnection,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        auth_provider=auth,
        ssl_context=_tls(settings),
        reconnection_policy=ConstantReconnectionPolicy(_RECONNECT_S, _FOR_EVER),
        sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # else requests of 4 KB or more wait 40 ms
        protocol_version=_PROTOCOL,
    )


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    if not settings.tls_ca:
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca)
    if settings.tls_certificate:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    return context


def _unavailable(error: BaseException) -> StorageUnavailable:
    return StorageUnavailable(f"Cassandra cannot work now: {error}")
