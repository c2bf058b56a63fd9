"""After their retention runs leave nothing, and what comes late for them is answered, and leaves nothing either."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from perdure import Handle
from perdure.errors import RunFailed, RunNotFound
from perdure_runtime.adapters.cassandra import tails
from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.ports import Delivery, Ports
from perdure_schemas import topics
from perdure_schemas.common import NULL
from perdure_schemas.messages import (
    AttemptOutcome,
    DispatchTask,
    RunPurged,
    RunTask,
    RunWorkflowTask,
    StartReply,
    StartWorkflow,
    TimerFired,
)
from tests.sdk.semantics.world import World
from tests.servers import clean, remains
from tests.servers.replicas import LONG, NAMESPACE, replicas
from tests.servers.retention_app import (
    OBJECTS,
    Collector,
    echo,
    failing,
    family,
    many_turns,
    mend,
    offloading,
    patient,
    plain,
    refusing,
    relay,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(900)]

_T = TypeVar("_T")
AUDITOR = topics.inbox("auditor")
_SOON_S = 120.0
"""What has to become true; a machine under load takes its time."""
_MINUTES_S = 240.0
"""A minute of timers is dropped when it is over for a minute; its owner looks now and then."""
_LARGE = 250_000
"""Of a signal: five of them are more than one row holds, and each travels in its message."""
_OFFLOADED = 600_000
"""More than travels in a message."""
_TURNS = 12
_RESUMED_S = 20.0
"""Retention of what is resumed meanwhile."""
_LOOKED_AT_S = 30.0
"""Retention of what is looked at when all have ended, however busy the machine is."""
_ROUNDS = 10 if LONG else 1
"""Each with runs of every kind."""


class _Servers:
    """Two replicas of each engine."""

    patience_seconds = 800
    pause_seconds = 0.3

    def __init__(self, settings: PulsarSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Sequence[Ports]]:
        async with replicas(2, self._settings) as found:
            yield found

    async def publish_bytes(self, ports: Ports, topic: str, key: str, data: bytes) -> None:
        raise NotImplementedError


@asynccontextmanager
async def world(monkeypatch: pytest.MonkeyPatch, settings: PulsarSettings) -> AsyncIterator[World]:
    monkeypatch.setattr(World, "place", _Servers(settings))
    monkeypatch.setattr(tails, "_TAIL_ROWS_MAX", _TURNS // 2)
    async with World(*OBJECTS) as opened:
        yield opened


@asynccontextmanager
async def looking() -> AsyncIterator[Connection]:
    """A look at the tables as they are."""
    connection = await connect(clean.cassandra_settings(clean.keyspace()), clean.keyspace())
    try:
        yield connection
    finally:
        await connection.close()


async def soon(look: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Look until there is nothing, or the time is over; what there is then."""
    until = time.monotonic() + seconds
    while (found := await look()) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return found


async def ended(this: World, number: int) -> list[Handle[Any]]:
    """Runs of every kind, all of which have ended."""
    client = this.client
    for part in "abcde":  # before their start: with it they are one commit of more than a megabyte
        await client.handle(f"large-{number}").signal("values", part * _LARGE)
    large = await client.start(Collector, 5, id=f"large-{number}", retention=_LOOKED_AT_S)
    runs: list[Handle[Any]] = [
        large,
        await client.start(plain, "a", id=f"plain-{number}"),
        await client.start(patient, "b", id=f"patient-{number}"),
        await client.start(family, 3, id=f"family-{number}"),
        await client.start(relay, 3, id=f"relay-{number}"),
        await client.start(offloading, "x" * _OFFLOADED, 2, id=f"offloading-{number}", retention=_LOOKED_AT_S),
        await client.start(many_turns, _TURNS, id=f"turns-{number}", retention=_LOOKED_AT_S),
    ]
    results = [asyncio.create_task(run.result()) for run in runs]  # from now on: soon after its end a run is gone
    canceled = await client.start(Collector, 1, id=f"canceled-{number}")
    terminated = await client.start(Collector, 1, id=f"terminated-{number}")
    await canceled.cancel("no more of it")
    await terminated.terminate("no more of it")
    refused = await client.start(refusing, "c", id=f"refused-{number}")
    with pytest.raises(RunFailed):
        await refused.result()
    resumed = await client.start(failing, f"name-{number}", id=f"resumed-{number}", retention=_RESUMED_S)
    with pytest.raises(RunFailed):
        await resumed.result()
    mend(f"name-{number}")
    await resumed.resume()
    await asyncio.gather(resumed.result(), *results)
    assert await client.run(echo, "alone") == "alone"
    again = await client.start(plain, "second run of this id", id=f"plain-{number}")
    await again.result()
    return [*runs, resumed, canceled, terminated, refused, again]


async def everything_again(this: World) -> None:
    """All that engines, worker and client ever published, but answers: timers as what they fired."""
    known = (topics.WORKFLOW_ENGINE, topics.TASK_ENGINE, topics.WORKFLOW_EVENTS, topics.TASK_EVENTS)
    again = [
        (topic, message)
        for topic, message in list(this.spy.published)
        if topic in known or topic.startswith((topics.workflow_run(""), topics.task_run("")))
    ]
    kinds = {type(message.body) for _, message in again}
    assert {StartWorkflow, RunTask, RunWorkflowTask, DispatchTask, AttemptOutcome, TimerFired, RunPurged} <= kinds
    publisher = this.ports.broker.publisher()
    for start in range(0, len(again), 100):
        await publisher.publish(again[start : start + 100])


async def told_that_it_is_gone(this: World, run: Handle[Any]) -> None:
    run = this.client.handle(run.id, run_id=run.run_id)  # another than the one that was told how the run ended
    for asked in (run.result(timeout=60), run.signal("values", "late"), run.cancel(), run.resume(), run.describe()):
        with pytest.raises(RunNotFound):
            await asked
    consumer = await this.ports.broker.subscribe(NAMESPACE, [AUDITOR], AUDITOR, "exclusive")
    start = StartWorkflow(workflow_id=run.id, run_id=run.run_id, name="plain", args=NULL, reply_topic=AUDITOR)
    await this.send(topics.WORKFLOW_ENGINE, start, run.id, id=f"late start of {run.run_id}")
    (answer,) = await consumer.receive(1)
    assert isinstance(answer, Delivery)
    assert isinstance(reply := answer.message.body, StartReply)
    assert (reply.status, "purged" in reply.detail) == ("conflict", True)
    await consumer.ack([answer])
    await consumer.close()


async def test_nothing_is_left_of_runs_past_their_retention_and_of_what_comes_late(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = clean.pulsar_settings()
    async with world(monkeypatch, settings) as this, looking() as connection:
        first = await ended(this, 0)
        places = await remains.topics_and_subscriptions(settings, NAMESPACE)
        assert await connection.rows("SELECT * FROM chunks LIMIT 1"), "a commit was chunked"
        assert await connection.rows("SELECT * FROM archives LIMIT 1"), "commits were archived"
        assert await connection.rows("SELECT * FROM run_blobs LIMIT 1"), "values were stored beside their messages"
        runs = list(first)
        for number in range(1, _ROUNDS):
            runs += await ended(this, number)
        began = time.monotonic()
        assert not await soon(lambda: remains.of_runs(connection, minutes=LONG), _LOOKED_AT_S + _MINUTES_S)
        took = time.monotonic() - began
        assert await remains.topics_and_subscriptions(settings, NAMESPACE) == places, "runs have no topics of their own"
        with capsys.disabled():
            print(f"\n{len(runs)} runs and their children: nothing is left {took:.0f} s after the last end")
        await everything_again(this)
        for run in first:
            await told_that_it_is_gone(this, run)
        assert await (await this.client.start(plain, "anew", id=runs[1].id)).result() == "anew"
        assert not await soon(lambda: remains.backlogs(settings, NAMESPACE), _SOON_S), "all was handled"
        assert not await soon(lambda: remains.of_runs(connection, minutes=False), _LOOKED_AT_S + _SOON_S)
        assert (await this.client.list()).runs == []
        assert await remains.topics_and_subscriptions(settings, NAMESPACE) == places | {AUDITOR: []}
