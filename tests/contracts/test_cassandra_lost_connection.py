"""A connection that dies under a request is an outage; it is not the fault of whose request it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionShutdown

from perdure_runtime.adapters.cassandra import connection as module
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable, UnknownOutcome


class _Dying:
    """A session each of whose requests fails as the driver's do."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def prepare(self, cql: str) -> Any:
        return SimpleNamespace(bind=lambda values: SimpleNamespace(consistency_level=None))

    def get_pools(self) -> list[Any]:
        return [SimpleNamespace(host=SimpleNamespace(is_up=True), is_shutdown=False)]

    def execute_async(self, statement: Any) -> Any:
        def add_callbacks(on_rows: Callable[[Any], None], on_error: Callable[[Exception], None]) -> None:
            on_error(self._error)

        return SimpleNamespace(add_callbacks=add_callbacks)


_LOST = [ConnectionShutdown("Connection to 10.0.0.1:9042 was closed"), ConnectionBusy("in flight")]


@pytest.mark.parametrize("error", _LOST, ids=lambda error: type(error).__name__)
def test_what_was_under_way_is_unavailable_or_of_unknown_outcome(error: Exception) -> None:
    async def scenario() -> None:
        session: Any = _Dying(error)
        cluster: Any = None
        connection = Connection(CassandraSettings(), cluster, session, keyspace=None)
        with pytest.raises(StorageUnavailable, match=r"Cassandra at 127\.0\.0\.1, port 9042, cannot work now"):
            await connection.rows("SELECT version FROM commits", serial=True)
        with pytest.raises(StorageUnavailable):
            await connection.write("INSERT INTO tasks (record) VALUES (?)", b"")
        with pytest.raises(UnknownOutcome):
            await connection.decide("UPDATE commits SET version = ? IF version = ?", 2, 1)

    asyncio.run(scenario())


def test_nodes_with_too_much_to_do_are_not_given_more_by_other_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[CassandraSettings] = []

    async def open_session(settings: CassandraSettings) -> Any:
        opened.append(settings)
        raise StorageUnavailable("busy")

    async def scenario() -> None:
        monkeypatch.setattr(module, "open_session", open_session)
        session: Any = _Dying(NoHostAvailable("Unable to complete", {"10.0.0.1": ConnectionBusy("in flight")}))
        cluster: Any = SimpleNamespace(shutdown=lambda: None)
        connection = Connection(CassandraSettings(), cluster, session, keyspace=None)
        with pytest.raises(StorageUnavailable):
            await connection.rows("SELECT version FROM commits")
        await asyncio.sleep(0)
        await connection.close()

    asyncio.run(scenario())
    assert not opened
