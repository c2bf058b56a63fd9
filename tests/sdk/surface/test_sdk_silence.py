"""Engines that do not answer: whoever asks what they alone can tell is told so, sooner or later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from perdure import Client, Unavailable
from perdure._client import requests
from perdure_schemas.messages import Body, CommandReply, ControlRun, Message
from tests.sdk.surface.engine_double import EngineDouble


def answers_controls(message: Message) -> Iterator[Body]:
    if isinstance(message.body, ControlRun):
        yield CommandReply(status="ok")


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    double = EngineDouble(answers_controls)
    async with asyncio.timeout(60), double, double.client() as made:
        yield made


async def _start(client: Client) -> None:
    await client.start("order", "pear")


async def _signal(client: Client) -> None:
    await client.handle("o-1").signal("channel", 1)


async def _resume(client: Client) -> None:
    await client.handle("o-1").resume()


@pytest.mark.asyncio
@pytest.mark.parametrize("ask", [_start, _signal, _resume])
async def test_engines_that_answer_nobody_are_told_of(
    ask: Callable[[Client], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SILENCE_SECONDS_MAX", 0.1)
    async with client() as opened:
        with pytest.raises(Unavailable, match="no engine has answered"):
            await ask(opened)
        assert not opened._opened().requests._open


@pytest.mark.asyncio
@pytest.mark.parametrize("ask", [_start, _signal, _resume])
async def test_what_is_not_stored_yet_is_not_said_to_be(
    ask: Callable[[Client], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silence begins when an engine can know of the question."""
    monkeypatch.setattr(requests, "SILENCE_SECONDS_MAX", 0.1)
    async with client() as opened:
        backend, loop = opened._opened().requests.backend, asyncio.get_running_loop()
        confirmed = loop.create_future()
        monkeypatch.setattr(backend, "publish", lambda *_, **__: confirmed)
        asking = asyncio.ensure_future(ask(opened))
        await asyncio.sleep(0.3)
        assert not asking.done()
        confirmed.set_result(None)
        at = loop.time()
        with pytest.raises(Unavailable, match="no engine has answered"):
            await asking
        assert loop.time() >= at + 0.1


@pytest.mark.asyncio
async def test_a_queue_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits behind others waits as long as these take, if each takes less than a silence may."""
    monkeypatch.setattr(requests, "SILENCE_SECONDS_MAX", 0.05)
    async with client() as opened:
        loop, asked = asyncio.get_running_loop(), opened._opened().requests
        before = loop.time()
        await opened.handle("o-1").cancel()
        assert before <= asked.heard_at <= loop.time()
        asked.heard_at += 1.0
        with pytest.raises(Unavailable):
            await opened.start("order", "pear")
        assert loop.time() >= asked.heard_at + 0.05
