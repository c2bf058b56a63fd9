"""Values above the threshold: stored beside their messages, with whoever needs them, and as long as that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import Channel, Client, Retry, continue_as_new, signal, task, workflow
from perdure._payloads import edge
from perdure._payloads.edge import Edge
from perdure.convert import OFFLOAD_ABOVE_BYTES, encode
from perdure.errors import PayloadTooLarge, PayloadUnreadable, RunFailed
from perdure.payloads import Payloads
from perdure.testing import WorkflowEnvironment
from perdure_core.blobs import referred
from perdure_runtime.adapters.memory.records import MemoryBlobs
from perdure_runtime.errors import StorageUnavailable
from perdure_schemas import topics
from perdure_schemas.blobs import Blob, made_of, reference
from perdure_schemas.common import Address, Payload, TaskOptions
from perdure_schemas.messages import AttemptOutcome, Message, RunTask, TaskOutcome
from tests.sdk.worker.engine import working

LARGE = "x" * (2 * OFFLOAD_ABOVE_BYTES)
RETENTION = timedelta(seconds=2)
kept_shortly = workflow(retention=RETENTION)


@task
async def same(text: str) -> str:
    return text


@task(retry=Retry(attempts=3, initial=0.01))
async def third_time_lucky(text: str) -> str:
    from perdure import current_task

    if current_task().attempt < 3:
        raise ConnectionError(f"attempt {current_task().attempt}")
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


@kept_shortly
async def retrying(text: str) -> str:
    return await third_time_lucky(text)


OBJECTS = (same, third_time_lucky, child, parent, chain, Listener, sender, retrying)


def stores_of(client: Client) -> Any:
    return cast("Any", client)._backend.blobs._store


@pytest.mark.parametrize("keys", [None, Payloads(keys={"k": bytes(32)}, current="k", compress_from=None)])
def test_large_values_go_with_children_signals_and_next_runs(keys: Payloads | None) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), Client.embedded(*OBJECTS, payloads=keys) as client:
            assert await client.execute(parent, LARGE) == LARGE
            assert await client.execute(chain, LARGE, 2) == len(LARGE)
            assert await client.execute(retrying, LARGE) == LARGE
            listener = await client.start(Listener, id="listener")
            await listener.signal(Listener.values, LARGE)
            await client.execute(sender, "listener", LARGE)
            assert await listener.result() == 2 * len(LARGE)
            blobs: MemoryBlobs = stores_of(client)
            for (_, workflow_id, run_id), _ in list(blobs._of_runs.items()):
                history = await client.handle(workflow_id, run_id=run_id).history()
                assert {(blob.workflow_id, blob.run_id) for blob in referred(history)} == {(workflow_id, run_id)}
            stored = [data for own in blobs._of_runs.values() for data in own.values()]
            assert all((LARGE.encode() in data) == (keys is None) for data in stored)

    asyncio.run(scenario())


def test_after_their_retention_runs_leave_no_blob(tmp_path: Path) -> None:
    """Each goes when it likes: what it has sent, others have."""

    async def scenario() -> None:
        db = tmp_path / "shop.sqlite"
        async with asyncio.timeout(60), Client.embedded(*OBJECTS, db=db) as client:
            listener = await client.start(Listener, id="listener", retention=RETENTION)
            await client.execute(sender, "listener", LARGE)
            assert await client.execute(parent, LARGE) == LARGE
            assert await client.execute(chain, LARGE, 2) == len(LARGE)
            database = stores_of(client)._database
            of_runs = "SELECT DISTINCT workflow_id FROM blobs WHERE run_id != ''"
            assert len(database.read(of_runs)) == 5
            while database.read(of_runs) != [("listener",)]:  # noqa: ASYNC110 - until they are purged
                await asyncio.sleep(0.05)
            await listener.signal(Listener.values, LARGE)
            assert await listener.result() == 2 * len(LARGE)
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
            with pytest.raises(PayloadUnreadable, match="is past its retention"):
                await handle.result()

    asyncio.run(scenario())


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


def test_without_a_store_what_fits_goes_in_the_message_and_the_rest_names_the_setting() -> None:
    @task
    async def repeat(times: int) -> str:
        return "x" * times

    @task
    async def size(text: str) -> int:
        return len(text)

    async def scenario() -> None:
        async with working(repeat, size) as (engine, _):
            await engine.run_task("repeat", 900_000)
            told = await engine.next(TaskOutcome)
            assert told.result is not None
            assert len(told.result.data) == 900_002
            await engine.run_task("repeat", 990_000)
            failed = await engine.next(AttemptOutcome, lambda outcome: outcome.outcome == "failed")
            assert failed.failure is not None
            assert failed.failure.name == "PayloadTooLarge"
            assert "set PERDURE_URL" in failed.failure.message
            args = reference("json", made_of("b", b"[]"))
            options = TaskOptions()
            run = RunTask(
                task_id="t", attempt_id="a", attempt=1, name="size", args=args, options=options,
                answer_to=[Address(topics.TASK_ENGINE, "t")],
            )  # fmt: skip
            await engine.send(topics.task_run("size"), run, key="t")
            failed = await engine.next(AttemptOutcome, lambda outcome: outcome.task_id == "t")
            assert failed.failure is not None
            assert "stored beside the messages" in failed.failure.message
            assert "set PERDURE_URL" in failed.failure.message

    asyncio.run(scenario())


class Counting:
    """A store that tells how many are at it at once, and what was put."""

    def __init__(self) -> None:
        self.put_ids: list[str] = []
        self.now = self.most = 0

    async def put(self, blob: Blob, data: bytes) -> None:
        self.put_ids.append(blob.id)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1

    async def get(self, blob: Blob) -> bytes | None:
        return None


def outcomes(results: Sequence[Payload]) -> list[Message]:
    bodies = [
        TaskOutcome(
            workflow_id="w", run_id="r", command_id=f"c-{number}", generation=0, attempt=1, outcome="completed",
            result=result,
        )
        for number, result in enumerate(results)
    ]  # fmt: skip
    return [Message(id=f"m-{n}", namespace="default", key="w", at=1, body=body) for n, body in enumerate(bodies)]


def test_a_value_of_several_messages_is_stored_once_and_several_side_by_side() -> None:
    async def scenario() -> None:
        store = Counting()
        sealing = Edge(None, "default", lambda: store).seal(outcomes([encode(LARGE)] * 2))
        assert sealing is not None
        first, second = [cast("TaskOutcome", message.body).result for message in await sealing()]
        assert first == second
        assert len(store.put_ids) == 1
        sealing = Edge(None, "default", lambda: store).seal(outcomes([encode(LARGE + str(n)) for n in range(9)]))
        assert sealing is not None
        await sealing()
        assert store.most == edge._AT_ONCE

    asyncio.run(scenario())


def test_a_message_without_a_large_value_is_passed_on_as_the_object_it_is() -> None:
    (message,) = outcomes([encode("x" * (OFFLOAD_ABOVE_BYTES - 2))])
    plain = Edge(None, "default", Counting)
    assert plain.seal([message]) is None
    assert plain.open(message) is None
    assert plain.outgoing(message) is message
    assert plain.incoming(message) is message
    (larger,) = outcomes([encode("x" * (OFFLOAD_ABOVE_BYTES - 1))])
    assert plain.seal([larger]) is not None


def test_what_compression_makes_small_goes_in_the_message() -> None:
    async def scenario() -> None:
        store = Counting()
        sealing = Edge(Payloads(), "default", lambda: store).seal(outcomes([encode(LARGE)]))
        assert sealing is not None
        (message,) = await sealing()
        result = cast("TaskOutcome", message.body).result
        assert result is not None
        assert result.encoding == "json+zstd"
        assert not store.put_ids

    asyncio.run(scenario())


def test_a_failed_run_with_large_values_can_be_read_and_resumed() -> None:
    class Broken(Exception):
        pass

    ready: list[bool] = []

    @task
    async def fussy(text: str) -> str:
        if not ready:
            raise Broken("not yet")
        return text

    @workflow
    async def mended(text: str) -> str:
        return await fussy(await same(text))

    async def scenario() -> None:
        async with asyncio.timeout(60), Client.embedded(same, fussy, mended) as client:
            handle = await client.start(mended, LARGE)
            with pytest.raises(RunFailed, match="not yet"):
                await handle.result()
            ready.append(True)
            await handle.resume()
            assert await handle.result() == LARGE

    asyncio.run(scenario())


def test_a_value_over_the_limit_is_refused_where_it_is_given() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), Client.embedded(*OBJECTS) as client:
            with pytest.raises(PayloadTooLarge, match="over the limit of 16,777,216"):
                await client.start(parent, "x" * (16 * 1024 * 1024))

    asyncio.run(scenario())
