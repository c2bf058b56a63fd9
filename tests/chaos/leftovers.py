"""What the auditor reads of topics and tables: the read model against the runs, and what is left after retention."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import pulsar

from perdure import Client
from perdure.errors import RunNotFound
from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.recount import recount
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin, open_admin
from perdure_runtime.adapters.pulsar.names import family
from perdure_schemas import topics
from perdure_schemas.codec import decode
from perdure_schemas.messages import RunTask, TaskTimerFired, TimerFired
from tests.chaos.app import RETENTION_S
from tests.chaos.audit import Report
from tests.chaos.load import Promise
from tests.chaos.stack import Stack
from tests.servers.remains import timers_to_come

_T = TypeVar("_T")
AUDITOR = "auditor"
_OF_RUNS = ("archives", "archived_causes", "archived_marks", "chunks", "chunked_commits", "listed_tasks")
_SOON_S = 60.0
"""What has to become true once nobody breaks anything any more; a machine under load takes its time."""
_STILL_LISTED_S = RETENTION_S - 15.0
"""So long after its end no run has been forgotten, whenever it is looked at."""


async def audit_read_model(report: Report, client: Client, stack: Stack, promises: Sequence[Promise]) -> None:
    """Once its events are applied, each run that has not been forgotten is listed as it ended, and counts are exact."""

    events = (topics.WORKFLOW_EVENTS, topics.TASK_EVENTS)
    async with open_admin(stack.pulsar()) as admin:

        async def waiting() -> int:
            return sum([await admin.backlog(stack.namespace, topic, "projector") for topic in events])

        left = await _soon(waiting, _SOON_S)
    report.hold(not left, f"read model: {left} events were not applied within {_SOON_S:.0f} s")
    recent = (time.time() - _STILL_LISTED_S) * 1000
    for promise in promises:
        if promise.facts is None or promise.facts.ended_at < recent:
            continue
        report.listed += 1
        try:
            status: str = (await client.handle(promise.workflow_id).describe()).status
        except RunNotFound:
            status = "not there"
        report.hold(status == "completed", f"read model: {promise.workflow_id} has completed, and is {status}")
    for wrong in await recount(stack.cassandra(), stack.namespace):
        report.violations.append(f"read model: {wrong.counted} runs counted, {wrong.found} listed: {wrong}")


async def audit_leftovers(report: Report, client: Client, stack: Stack) -> None:
    """After retention nothing is left: no row of a run, no timer of one, no message, and no run counts.

    Of a task a timer may be left that will fire for nothing: to take away each would cost as much.
    """
    connection = await connect(stack.cassandra(), stack.cassandra().keyspace)
    try:
        async with open_admin(stack.pulsar()) as admin:
            left = await _soon(lambda: _left(connection, admin, stack.namespace), RETENTION_S + _SOON_S)
        report.open_tasks = len(await open_tasks(connection))
    finally:
        await connection.close()
    report.hold(not left, f"left over after retention: {left}")

    async def counted() -> dict[str, dict[str, int]]:
        return {name: counts for name, counts in (await client.counts()).items() if any(counts.values())}

    counts = await _soon(counted, _SOON_S)
    report.hold(not counts, f"read model: no run is left, and they count as {counts}")


async def _soon(look: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Look until there is nothing, or the time is over; what there is then."""
    until = time.monotonic() + seconds
    while (found := await look()) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(1)
    return found


async def _left(connection: Connection, admin: PulsarAdmin, namespace: str) -> dict[str, int]:
    left = {table: len(await connection.rows(f"SELECT workflow_id FROM {table}")) for table in _OF_RUNS}
    left["commits"] = sum(1 for row in await connection.rows("SELECT version FROM commits") if row[0] is not None)
    left["listed_runs"] = sum(
        1 for row in await connection.rows("SELECT run_id FROM listed_runs") if row[0] is not None
    )
    timers = await timers_to_come(connection)
    for timer, seconds in timers:
        if isinstance(timer.fires, TimerFired):
            left[f"timer ({timer.fires.kind}) of run {timer.fires.run_id}, due in {seconds} s"] = 1
    left["tasks nobody looks at"] = len(await open_tasks(connection) - _watched(timer.fires for timer, _ in timers))
    for topic in await admin.topics(namespace):
        subscription = family(topic).subscription
        left[f"topic {topic}"] = await admin.backlog(namespace, topic, subscription) if subscription else 0
    return {place: count for place, count in left.items() if count}


async def open_tasks(connection: Connection) -> set[str]:
    """Ids of tasks whose record is open: one that is over has a time to live, and stands for that, as a tombstone.

    A dispatch that came again may leave one whose task is over. It has a timer, as each has, by which the task engine
    asks the history within an hour (rule 24 of the protocol).
    """
    return {row[1] for row in await connection.rows("SELECT ttl(record), task_id FROM tasks") if row[0] is None}


def _watched(to_come: Iterable[TimerFired | TaskTimerFired]) -> set[str]:
    return {fires.task_id for fires in to_come if isinstance(fires, TaskTimerFired)}


class Wiretap:
    """A subscription of its own to topics of attempts: every RunTask that anybody ever published."""

    def __init__(self, url: str, addresses: Sequence[str]) -> None:
        self._client = pulsar.Client(url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
        self._consumers = [
            self._client.subscribe(address, AUDITOR, initial_position=pulsar.InitialPosition.Earliest)
            for address in addresses
        ]

    def published(self) -> Counter[str]:
        """RunTask messages by attempt id. Blocking."""
        found: Counter[str] = Counter()
        for consumer in self._consumers:
            while True:
                try:
                    message = consumer.receive(2_000)
                except pulsar.Timeout:
                    break
                consumer.acknowledge(message)
                body = decode(message.data()).body
                if isinstance(body, RunTask):
                    found[body.attempt_id] += 1
        return found

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.unsubscribe()
        self._client.close()
