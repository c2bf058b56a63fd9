"""What is told of a Pulsar that cannot be used."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from perdure_runtime.adapters.pulsar.greeting import trouble
from perdure_runtime.adapters.pulsar.settings import PulsarSettings
from tests.servers.provision import free_port

_REFUSAL = bytes((8, 14, 0x72, 6, 16, 3, 26, 2)) + b"no"
"""BaseCommand(type=ERROR, error=CommandError(error=AuthenticationError, message="no"))"""


def test_a_certificate_that_is_not_there_is_not_told_as_a_broker_that_is_away(tmp_path: Path) -> None:
    settings = PulsarSettings(url="pulsar+ssl://127.0.0.1:6651", tls_ca=str(tmp_path / "ca.pem"))
    told = asyncio.run(trouble(settings))
    assert "cannot be reached" not in told
    assert "PERDURE_PULSAR_TLS_CA" in told


@pytest.mark.parametrize("refusing_last", [True, False])
def test_of_several_brokers_the_one_that_refuses_us_tells_more_than_one_that_is_away(refusing_last: bool) -> None:
    told = asyncio.run(_trouble_of_two(refusing_last))
    assert "refuses our token: no" in told
    assert "PERDURE_PULSAR_TOKEN" in told


async def _trouble_of_two(refusing_last: bool) -> str:
    left = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(struct.pack(">II", len(_REFUSAL) + 4, len(_REFUSAL)) + _REFUSAL)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    broker = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with broker:
        places = [f"127.0.0.1:{port}" for port in (broker.sockets[0].getsockname()[1], free_port())]
        ordered = reversed(places) if refusing_last else places
        told = await trouble(PulsarSettings(url=f"pulsar://{','.join(ordered)}", token="wrong"))
        await left.wait()
        return told
