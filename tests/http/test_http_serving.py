"""Connections of the API, as proxies and `kubectl port-forward` see them."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from fastapi import FastAPI

from perdure._http import serving


@pytest.mark.asyncio
async def test_an_idle_connection_is_closed_when_its_time_is_over_and_not_before_clients_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with aiohttp.TCPConnector() as connector:
        kept = connector._keepalive_timeout
        assert kept is not None
        assert kept < serving.IDLE_SECONDS_MAX
    monkeypatch.setattr(serving, "IDLE_SECONDS_MAX", 0)
    async with serving.serving(FastAPI(), "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(3):  # the library's own time is 5 s
            assert (await reader.read()).startswith(b"HTTP/1.1 404")
        writer.close()
