"""What every store of blobs must do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from perdure_core.blobs import in_transit
from perdure_runtime.adapters.socket import connect, serve
from perdure_runtime.blobs import fetch
from perdure_runtime.ports import TRANSIT_TTL_MS, Ports
from perdure_schemas.blobs import Blob, made_of
from tests.contracts.worlds import Scenario, SteppedClock, open_ports

DATA = b"data"
LARGE = bytes(range(256)) * 4 * 1024 * 16 + b"and some"
"""16 MB: more than one row of any store, and no multiple of one."""


def of_run(blob: Blob, run_id: str = "r") -> Blob:
    return replace(blob, workflow_id="w", run_id=run_id)


@pytest.mark.parametrize("data", [b"", DATA, LARGE], ids=["empty", "small", "large"])
def test_what_was_put_is_there_whole(run: Callable[[Scenario], None], data: bytes) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        for blob in (made_of("b", data), of_run(made_of("b", data))):
            await ports.blobs.put("ns", blob, data)
            await ports.blobs.put("ns", blob, data)
            assert await ports.blobs.get("ns", blob) == data
            assert await ports.blobs.get("other", blob) is None

    run(scenario)


def test_the_areas_are_apart(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        blob = made_of("b", DATA)
        await ports.blobs.put("ns", of_run(blob), DATA)
        assert await ports.blobs.get("ns", blob) is None
        assert await ports.blobs.get("ns", of_run(blob, "other")) is None
        assert await ports.blobs.get("ns", replace(of_run(blob), workflow_id="other")) is None
        await ports.blobs.remove("ns", blob)
        assert await ports.blobs.get("ns", of_run(blob)) == DATA

    run(scenario)


def test_what_is_not_what_was_put_is_not_there(run: Callable[[Scenario], None]) -> None:
    """As half a write, whoever left it."""

    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        for blob in (made_of("b", DATA), of_run(made_of("b", DATA))):
            await ports.blobs.put("ns", blob, DATA[:-1])
            assert await ports.blobs.get("ns", blob) is None
            await ports.blobs.put("ns", blob, DATA)
            assert await ports.blobs.get("ns", blob) == DATA
            assert await ports.blobs.get("ns", replace(blob, size=3)) is None
            assert await ports.blobs.get("ns", replace(blob, sha256="0" * 64)) is None

    run(scenario)


def test_only_what_is_in_transit_expires(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        blob = made_of("b", DATA)
        await ports.blobs.put("ns", blob, DATA)
        await ports.blobs.put("ns", of_run(blob), DATA)
        clock.time += TRANSIT_TTL_MS - 1
        assert await ports.blobs.get("ns", blob) == DATA
        clock.time += 1
        assert await ports.blobs.get("ns", blob) is None
        assert await ports.blobs.get("ns", of_run(blob)) == DATA
        await ports.blobs.put("ns", blob, DATA)
        assert await ports.blobs.get("ns", blob) == DATA

    run(scenario)


def test_what_is_removed_is_gone_and_may_be_put_again_in_transit(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        blob = made_of("b", DATA)
        await ports.blobs.remove("ns", blob)
        await ports.blobs.put("ns", blob, DATA)
        await ports.blobs.remove("ns", blob)
        assert await ports.blobs.get("ns", blob) is None
        await ports.blobs.put("ns", blob, DATA)
        assert await ports.blobs.get("ns", blob) == DATA
        await ports.blobs.put("ns", of_run(blob), DATA)
        await ports.blobs.remove("ns", of_run(blob))
        assert await ports.blobs.get("ns", of_run(blob)) is None

    run(scenario)


def test_a_purge_takes_all_of_a_run_and_of_no_other(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        first, second = made_of("b-1", DATA), made_of("b-2", LARGE)
        for blob, data in ((first, DATA), (second, LARGE)):
            await ports.blobs.put("ns", of_run(blob), data)
            await ports.blobs.put("ns", of_run(blob, "other"), data)
            await ports.blobs.put("ns", blob, data)
        await ports.blobs.put("ns", of_run(made_of("b-3", DATA)), DATA[:-1])
        await ports.blobs.purge("ns", "w", "r")
        await ports.blobs.purge("ns", "w", "r")
        for blob, data in ((first, DATA), (second, LARGE)):
            assert await ports.blobs.get("ns", of_run(blob)) is None
            assert await ports.blobs.get("ns", of_run(blob, "other")) == data
            assert await ports.blobs.get("ns", blob) == data

    run(scenario)


def test_through_a_socket_they_are_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_ports("sqlite", tmp_path, SteppedClock()) as ports:
            server = await serve(ports, tmp_path / "s")
            client = await connect(tmp_path / "s")
            try:
                blob = made_of("b", LARGE)
                await client.blobs.put("ns", blob, LARGE)
                assert await ports.blobs.get("ns", blob) == LARGE
                assert await client.blobs.get("ns", blob) == LARGE
                assert await client.blobs.get("ns", of_run(blob)) == LARGE, "it may not have been copied yet"
                assert await client.blobs.get("ns", made_of("c", DATA)) is None
            finally:
                await client.close()
                await server.close()

    asyncio.run(scenario())


def test_a_runs_own_is_found_before_and_after_it_is_copied(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        own = of_run(made_of("b", DATA))
        assert await fetch(ports.blobs, "ns", own) is None
        await ports.blobs.put("ns", in_transit(own), DATA)
        assert await fetch(ports.blobs, "ns", own) == DATA
        await ports.blobs.put("ns", own, DATA)
        await ports.blobs.remove("ns", in_transit(own))
        assert await fetch(ports.blobs, "ns", own) == DATA

    run(scenario)
