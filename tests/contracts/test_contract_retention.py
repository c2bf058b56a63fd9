"""What nobody takes does not pile up; dead letters can be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from perdure_runtime.adapters import retention
from perdure_runtime.adapters.queues import QueueBroker
from perdure_runtime.adapters.socket import connect, serve
from perdure_runtime.ports import DeadLetters, Delivery, Ports, Undeliverable
from perdure_schemas import topics
from tests.contracts.worlds import LOCAL_STORES, PATIENCE_S, SteppedClock, ids, message, open_ports

Scenario = Callable[[Ports, DeadLetters], Awaitable[None]]
LETTERS = topics.dead_letters("timers")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "DEAD_LETTERS_KEPT", 3)
    monkeypatch.setattr(retention, "EVENTS_KEPT", 3)


@pytest.fixture(params=LOCAL_STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    async def world(scenario: Scenario) -> None:
        async with open_ports(request.param, tmp_path, SteppedClock()) as ports:
            await asyncio.wait_for(scenario(ports, cast(QueueBroker, ports.broker)), PATIENCE_S)

    return lambda scenario: asyncio.run(world(scenario))


async def publish(ports: Ports, topic: str, *names: str) -> None:
    for name in names:
        await ports.broker.publisher().publish([(topic, message(name))])


async def waiting(ports: Ports, topic: str) -> list[str]:
    """What the first subscriber of the topic finds."""
    consumer = await ports.broker.subscribe("ns", [topic], "late", "shared")
    await ports.broker.publisher().publish([(topic, message("last"))])
    found: list[Delivery | Undeliverable] = []
    while "last" not in ids(found):
        found += await consumer.receive()
    return ids(found)[:-1]


def test_dead_letters_are_listed_newest_first_and_stay(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, letters: DeadLetters) -> None:
        await publish(ports, LETTERS, "1", "2")
        await ports.broker.publisher().publish_raw(topics.dead_letters("t"), "ns", b"\xff", "not ours")
        await publish(ports, "t", "alive")
        for _ in range(2):
            raw, *rest = await letters.dead_letters("ns", 9)
            assert isinstance(raw, Undeliverable)
            assert (raw.topic, raw.data, raw.error) == (topics.dead_letters("t"), b"\xff", "not ours")
            assert ids(rest) == ["2", "1"]
        assert len(await letters.dead_letters("ns", 1)) == 1
        assert not await letters.dead_letters("other", 9)

    run(scenario)


@pytest.mark.parametrize("subscribed", [False, True])
def test_of_dead_letters_the_newest_are_kept(run: Callable[[Scenario], None], subscribed: bool) -> None:
    async def scenario(ports: Ports, letters: DeadLetters) -> None:
        if subscribed:
            await (await ports.broker.subscribe("ns", [LETTERS], "api", "shared")).close()
        await publish(ports, LETTERS, *"12345")
        assert ids(list(await letters.dead_letters("ns", 9))) == ["5", "4", "3"]

    run(scenario)


@pytest.mark.parametrize("topic", [topics.TASK_EVENTS, topics.WORKFLOW_EVENTS])
def test_of_events_without_a_subscriber_the_newest_are_kept(run: Callable[[Scenario], None], topic: str) -> None:
    async def scenario(ports: Ports, letters: DeadLetters) -> None:
        await publish(ports, topic, *"12345")
        assert await waiting(ports, topic) == ["3", "4", "5"]

    run(scenario)


def test_of_events_with_a_subscriber_all_are_kept(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, letters: DeadLetters) -> None:
        await (await ports.broker.subscribe("ns", [topics.TASK_EVENTS], "late", "shared")).close()
        await publish(ports, topics.TASK_EVENTS, *"12345")
        assert await waiting(ports, topics.TASK_EVENTS) == list("12345")

    run(scenario)


def test_a_hello_is_for_those_who_listen(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, letters: DeadLetters) -> None:
        await publish(ports, topics.WORKER_HELLO, "1")
        assert await waiting(ports, topics.WORKER_HELLO) == []

    run(scenario)


@pytest.mark.parametrize("topic", [topics.task_run("charge"), topics.workflow_run("order"), topics.WORKFLOW_ENGINE])
def test_work_waits_for_its_first_worker_however_much(run: Callable[[Scenario], None], topic: str) -> None:
    async def scenario(ports: Ports, letters: DeadLetters) -> None:
        await publish(ports, topic, *"12345")
        assert await waiting(ports, topic) == list("12345")

    run(scenario)


def test_what_is_dropped_is_gone_from_the_file(tmp_path: Path) -> None:
    async def scenario(expected: list[str]) -> None:
        async with open_ports("sqlite", tmp_path, SteppedClock()) as ports:
            if not expected:
                await publish(ports, LETTERS, *"12345")
                return
            found = await cast(QueueBroker, ports.broker).dead_letters("ns", 9)
            assert ids(list(found)) == expected

    asyncio.run(scenario([]))
    asyncio.run(scenario(["5", "4", "3"]))


def test_dead_letters_are_seen_from_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_ports("memory", tmp_path, SteppedClock()) as ports:
            server = await serve(ports, tmp_path / "s")
            client = await connect(tmp_path / "s")
            await publish(ports, LETTERS, "1")
            await ports.broker.publisher().publish_raw(LETTERS, "ns", b"\xff", "not ours")
            raw, letter = await client.reads.dead_letters("ns", 9)
            assert isinstance(raw, Undeliverable)
            assert (raw.topic, raw.data, raw.error) == (LETTERS, b"\xff", "not ours")
            assert isinstance(letter, Delivery)
            assert letter.message == message("1")
            await client.close()
            await server.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
