"""Values that are stored beside the messages, as programs see them: no other than any."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Channel, Client, Retry, all_of, continue_as_new, current_task, inline, signal, task, workflow
from perdure.cli.timeline import value_of
from perdure.convert import OFFLOAD_ABOVE_BYTES
from perdure.errors import PayloadTooLarge, RunFailed
from perdure.payloads import Payloads
from perdure_core.blobs import referred
from perdure_schemas.blobs import made_of, reference

LARGE = "x" * (2 * OFFLOAD_ABOVE_BYTES)
READY: list[bool] = []


@task
async def same(text: str) -> str:
    return text


@task(retry=Retry(attempts=3, initial=0.01))
async def third_time_lucky(text: str) -> str:
    if current_task().attempt < 3:
        raise ConnectionError(f"attempt {current_task().attempt}")
    return text


@workflow
async def child(text: str) -> str:
    return await same(text)


@workflow
async def parent(text: str) -> str:
    return await child.options(id="child")(text)


@workflow
async def chain(text: str, left: int) -> int:
    if left:
        continue_as_new(chain, await same(text), left - 1)
    return len(text)


@workflow
class Listener:
    values: Channel[str] = Channel()

    async def run(self) -> int:
        return len(await self.values.receive()) + len(await self.values.receive())


@workflow
async def sender(to: str, text: str) -> None:
    signal(to, "values", text)


@workflow
async def retrying(text: str) -> str:
    return await third_time_lucky(text)


@task
async def fussy(text: str) -> str:
    if not READY:
        raise ValueError("not yet")
    return text


@workflow
async def mended(text: str) -> str:
    return await fussy(await same(text))


@workflow
async def fan_out(text: str, width: int) -> list[int]:
    """More in one turn than any message bears, and than one portion of it."""
    noted = inline(lambda: text * 2)
    return [len(each) for each in await all_of(*(same(text * size) for size in range(1, width + 1)))] + [len(noted)]


OBJECTS = (same, fan_out, third_time_lucky, fussy, child, parent, chain, Listener, sender, retrying, mended)


@pytest.mark.parametrize("keys", [None, Payloads(keys={"k": bytes(32)}, current="k", compress_from=None)])
def test_large_values_go_with_children_signals_retries_and_next_runs(keys: Payloads | None) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(120), Client.embedded(*OBJECTS, payloads=keys) as client:
            family = await client.start(parent, LARGE, id="parent")
            assert await family.result() == LARGE
            assert await client.execute(chain, LARGE, 2) == len(LARGE)
            assert await client.execute(retrying, LARGE) == LARGE
            assert await client.execute(fan_out, LARGE, 4) == [size * len(LARGE) for size in (1, 2, 3, 4, 2)]
            assert await client.run(same, LARGE) == LARGE
            listener = await client.start(Listener, id="listener")
            await listener.signal(Listener.values, LARGE)
            await client.execute(sender, "listener", LARGE)
            assert await listener.result() == 2 * len(LARGE)
            for run in (family, listener):
                owners = {(blob.workflow_id, blob.run_id) for blob in referred(await run.history())}
                assert owners == {(run.id, run.run_id)}

    asyncio.run(scenario())


def test_a_table_tells_how_large_a_value_is() -> None:
    assert value_of(reference("json+zstd", made_of("b", b"data"))) == "(4 bytes, stored beside the history)"


def test_a_failed_run_with_large_values_is_resumed() -> None:
    READY.clear()

    async def scenario() -> None:
        async with asyncio.timeout(120), Client.embedded(*OBJECTS) as client:
            handle = await client.start(mended, LARGE)
            with pytest.raises(RunFailed, match="not yet"):
                await handle.result()
            READY.append(True)
            await handle.resume()
            assert await handle.result() == LARGE

    asyncio.run(scenario())


def test_a_value_over_the_limit_is_refused_where_it_is_given() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(120), Client.embedded(*OBJECTS) as client:
            with pytest.raises(PayloadTooLarge, match="over the limit of 16,777,216"):
                await client.start(parent, "x" * (16 * 1024 * 1024))

    asyncio.run(scenario())
