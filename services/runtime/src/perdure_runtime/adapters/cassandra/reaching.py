"""A session of a cluster, or why there is none: which server, what it says, and the setting to look at."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from cassandra import AuthenticationFailed, ConsistencyLevel, OperationTimedOut, Unauthorized, UnresolvableContactPoints
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.io.libevreactor import LibevConnection
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import tuple_factory

from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable

_PROTOCOL = 4
"""Of 5 the driver (3.30) loses what it has of a segment's header when a read ends within it, and then the connection
("CRC mismatch on header"). What 5 adds we do not use: checksums are TLS's, and no statement selects all columns."""
_RECONNECT_S = 0.2
"""A node that comes back is used again at once; the default's back-off doubles up to ten minutes."""
_FOR_EVER: Any = None
"""As the driver says: attempts without end. Its annotations do not know."""
_CREDENTIALS = "PERDURE_CASSANDRA_USERNAME, PERDURE_CASSANDRA_PASSWORD"
_ADDRESS = "PERDURE_CASSANDRA_HOSTS, PERDURE_CASSANDRA_PORT"

_TLS = "PERDURE_CASSANDRA_TLS_CA, PERDURE_CASSANDRA_TLS_CERTIFICATE, PERDURE_CASSANDRA_TLS_KEY"


async def open_session(settings: CassandraSettings) -> tuple[Cluster, Session]:
    """A new one.

    Raises:
        StorageUnavailable: no node can be reached or takes us.
    """
    try:
        cluster = await asyncio.to_thread(_cluster, settings)  # which looks up the names of the nodes
    except (UnresolvableContactPoints, OSError) as error:  # an SSLError is one, too
        raise unavailable(error, settings) from error
    try:
        return cluster, await asyncio.to_thread(cluster.connect)
    except BaseException as error:  # the driver raises many kinds here, some of them bare; or we are canceled
        await asyncio.to_thread(cluster.shutdown)
        if not isinstance(error, Exception):
            raise
        raise unavailable(error, settings) from error


def unavailable(error: BaseException, settings: CassandraSettings) -> StorageUnavailable:
    """What to raise of an error of the driver's. It names no secret."""
    return StorageUnavailable(
        f"Cassandra at {', '.join(settings.hosts)}, port {settings.port}, {_told(error, settings)}"
    )


def _told(error: BaseException, settings: CassandraSettings) -> str:
    match error:
        case UnresolvableContactPoints():
            return "cannot be reached: no address is known for these names (see PERDURE_CASSANDRA_HOSTS)"
        case OSError():
            return f"cannot be reached by TLS: {error} (see {_TLS})"
        case Unauthorized():
            return f"refuses user {settings.username!r} something: {error} (see {_CREDENTIALS})"
        case NoHostAvailable(errors=dict(errors)) if errors:
            refusals = [each for each in errors.values() if isinstance(each, AuthenticationFailed)]
            if refusals:
                who = f"user {settings.username!r}" if settings.username else "us without a user name"
                return f"refuses {who}: {refusals[0]} (see {_CREDENTIALS})"
            first = next(iter(errors.values()))
            told = "it does not answer" if isinstance(first, OperationTimedOut) else first
            return f"cannot be reached: {told} (see {_ADDRESS})"
        case NoHostAvailable(errors=list()):
            return f"has no node in data center {settings.datacenter!r} (see PERDURE_CASSANDRA_DATACENTER)"
        case NoHostAvailable():
            return f"cannot be reached: no node answers (see {_ADDRESS})"
        case _:
            return f"cannot work now: {error}"


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
