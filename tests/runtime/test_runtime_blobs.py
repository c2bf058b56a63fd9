"""What the engines do with values that are stored beside the messages, seen in the store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from perdure import Channel, Client, continue_as_new, signal, task, workflow
from perdure.convert import OFFLOAD_ABOVE_BYTES
from perdure.errors import PayloadUnreadable
from perdure.testing import WorkflowEnvironment
from perdure_runtime.adapters.memory.records import MemoryBlobs
from perdure_runtime.blobs import Custody
from perdure_runtime.clock import SystemClock
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RunKey
from perdure_schemas import topics
from perdure_schemas.blobs import Blob, made_of
from perdure_schemas.messages import CancelTimer, Message
from tests.runtime.parts import NAMESPACE, World

LARGE = "x" * (2 * OFFLOAD_ABOVE_BYTES)
RETENTION = timedelta(hours=1)
kept_shortly = workflow(retention=RETENTION)


@task
async def same(text: str) -> str:
    return text


@kept_shortly
async def child(text: str) -> str:
    return await same(text)


@kept_shortly
async def parent(text: str) -> str:
    return await child.options(id="child", retention=RETENTION)(text)


@kept_shortly
async def chain(text: str, left: int) -> int:
    if left:
        continue_as_new(chain, await same(text), left - 1)
    return len(text)


@kept_shortly
class Listener:
    values: Channel[str] = Channel()

    async def run(self) -> int:
        return len(await self.values.receive()) + len(await self.values.receive())


@kept_shortly
async def sender(to: str, text: str) -> None:
    signal(to, "values", text)


OBJECTS = (same, child, parent, chain, Listener, sender)


def stores_of(client: Client) -> Any:
    return cast("Any", client)._backend.blobs._store


class Ahead(SystemClock):
    """How far time is ahead of the real one: retention ends when the test says so, however long its runs take."""

    ms = 0

    def now(self) -> int:
        return super().now() + Ahead.ms

    @classmethod
    async def past_retention(cls, client: Client) -> None:
        """The timer service looks at the clock when a timer is canceled."""
        cls.ms += int(RETENTION.total_seconds() * 1_000) + 1
        nudge = Message(id=f"nudge-{cls.ms}", namespace="default", key="", at=1, body=CancelTimer(timer_id=""))
        await cast("Any", client)._backend.publish(topics.TIMERS, nudge)


def test_after_their_retention_runs_leave_no_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes when it likes: what it has sent, others have."""
    monkeypatch.setattr(Ahead, "ms", 0)
    monkeypatch.setattr("perdure._client.embedded.SystemClock", Ahead)

    async def scenario() -> None:
        db = tmp_path / "shop.sqlite"
        async with asyncio.timeout(60), Client.embedded(*OBJECTS, db=db) as client:
            listener = await client.start(Listener, id="listener", retention=RETENTION)
            await client.execute(sender, "listener", LARGE)
            assert await client.execute(parent, LARGE) == LARGE
            assert await client.execute(chain, LARGE, 2) == len(LARGE)
            database = stores_of(client)._database
            of_runs = "SELECT DISTINCT workflow_id FROM blobs WHERE run_id != ''"
            while len(database.read(of_runs)) < 5:  # noqa: ASYNC110 - nobody waits for the signal's arrival
                await asyncio.sleep(0.05)
            await Ahead.past_retention(client)
            while database.read(of_runs) != [("listener",)]:  # noqa: ASYNC110 - until they are purged
                await asyncio.sleep(0.05)
            await listener.signal(Listener.values, LARGE)
            assert await listener.result() == 2 * len(LARGE)
            await Ahead.past_retention(client)
            while database.read(of_runs):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(0)
            assert database.read("SELECT count(*) FROM blobs WHERE expires_at IS NULL") == [(0,)]

    asyncio.run(scenario())


def test_a_value_whose_run_is_past_its_retention_says_so() -> None:
    async def scenario() -> None:
        async with WorkflowEnvironment(*OBJECTS) as env:
            handle = await env.client.start(parent, LARGE)
            assert await handle.result() == LARGE
            blobs: MemoryBlobs = stores_of(env.client)
            await blobs.purge("default", handle.id, handle.run_id)
            with pytest.raises(PayloadUnreadable, match="is past its retention, or it was never copied"):
                await handle.result()

    asyncio.run(scenario())


def test_a_value_that_is_nowhere_is_told_of_with_its_workflow_id(caplog: pytest.LogCaptureFixture) -> None:
    """What was copied before is not missed, nor what went with its run."""

    async def scenario() -> None:
        ports = World().ports
        lost, copied, purged = (replace(made_of(w, b"x"), workflow_id=w, run_id="r") for w in ("w1", "w2", "w3"))
        await ports.blobs.put(NAMESPACE, copied, b"x")
        await ports.store.purge(RunKey(NAMESPACE, "w3"), "r", 0, 1_000_000)
        await Custody(ports, NAMESPACE).keep([lost, copied, purged])

    asyncio.run(scenario())
    assert [getattr(record, "workflow_id", "") for record in caplog.records] == ["w1"]


_REFUSALS = 8


class Away(MemoryBlobs):
    """A store that is away for a while."""

    refusals = 0

    async def put(self, namespace: str, blob: Blob, data: bytes) -> None:
        self._refuse()
        await super().put(namespace, blob, data)

    async def get(self, namespace: str, blob: Blob) -> bytes | None:
        self._refuse()
        return await super().get(namespace, blob)

    def _refuse(self) -> None:
        self.refusals += 1
        if self.refusals <= _REFUSALS:
            raise StorageUnavailable("away")


def test_a_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), Client.embedded(*OBJECTS) as client:
            store = stores_of(client)
            monkeypatch.setattr(store, "__class__", Away)
            store.refusals = 0
            assert await client.execute(parent, LARGE, retention=timedelta(hours=1)) == LARGE
            assert store.refusals > _REFUSALS
            store.refusals = 0
            assert await client.run(same, LARGE) == LARGE
            assert store.refusals > _REFUSALS

    asyncio.run(scenario())
