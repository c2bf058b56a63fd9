"""What the broker on Pulsar promises beyond the contracts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pulsar
import pytest

from perdure_runtime.adapters.pulsar import PulsarBroker, PulsarSettings
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin, open_admin
from perdure_runtime.adapters.pulsar.letters import published_at
from perdure_runtime.adapters.pulsar.names import address
from perdure_runtime.ports import Consumer, Delivery, Undeliverable
from perdure_schemas import topics
from perdure_schemas.codec import decode
from tests.contracts.worlds import ids, message
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)
Scenario = Callable[[PulsarBroker, PulsarAdmin, PulsarSettings], Awaitable[None]]
_VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "schemas/vectors/partition.json").read_text("utf-8")
)["vectors"]


@pytest.fixture
def run() -> Callable[[Scenario], None]:
    settings = clean.pulsar_settings()

    async def world(scenario: Scenario) -> None:
        async with clean.pulsar_broker(["ns"], settings) as broker, open_admin(settings) as admin:
            await asyncio.wait_for(scenario(broker, admin, settings), 60)

    return lambda scenario: asyncio.run(world(scenario))


def test_workers_are_there_while_they_are_connected(run: Callable[[Scenario], None]) -> None:
    """A subscription is made for what waits, too."""

    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        topic = topics.workflow_run("order")
        assert not await admin.consumed("ns", topic, "workers")
        await broker.publisher().publish([(topic, message("m", "k"))])
        assert not await admin.consumed("ns", topic, "workers")
        worker = await broker.subscribe("ns", [topic], "workers", "key-shared")
        assert await admin.consumed("ns", topic, "workers")
        await worker.close()

    run(scenario)


def test_keys_go_to_the_partitions_of_our_own_rule(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        partitions = 16
        expected = {
            vector["key"]: vector["partitions"][str(partitions)]
            for vector in _VECTORS
            if vector["key"] and str(partitions) in vector["partitions"]
        }
        assert len(expected) >= 5
        await admin.init("ns", partitions)
        await admin.init("ns", partitions)  # changes nothing
        batch = [(topics.WORKFLOW_ENGINE, message(str(n), key)) for n, key in enumerate(expected)]
        await broker.publisher().publish(batch)
        assert await admin.backlog("ns", topics.WORKFLOW_ENGINE, "workflow-engine") == len(expected)
        assert await asyncio.to_thread(_places, settings, len(expected)) == expected

    run(scenario)


def _places(settings: PulsarSettings, count: int) -> dict[str, int]:
    """In which partition each key lies, as another client of Pulsar sees it."""
    client = pulsar.Client(settings.url)
    try:
        name = address(settings.tenant, "ns", topics.WORKFLOW_ENGINE)
        consumer = client.subscribe(name, "check", initial_position=pulsar.InitialPosition.Earliest)
        found = {}
        for _ in range(count):
            raw = consumer.receive(timeout_millis=10_000)
            found[decode(raw.data()).key] = int(raw.topic_name().rsplit("-", 1)[1])
        return found
    finally:
        client.close()


def test_an_inbox_that_was_deleted_takes_no_other_message_down_with_it(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        inbox, publisher = topics.inbox("gone"), broker.publisher()
        await (await broker.subscribe("ns", [inbox], "gone", "exclusive")).close()
        await publisher.publish([(inbox, message("1"))])
        url = f"{settings.admin_url}/admin/v2/persistent/{settings.tenant}/ns.inboxes/{inbox}?force=true"
        async with aiohttp.ClientSession() as session, session.delete(url) as answer:
            assert answer.status == 204
        consumer = await broker.subscribe("ns", [topics.TASK_ENGINE], "task-engine", "key-shared")
        await publisher.publish([(inbox, message("2")), (topics.TASK_ENGINE, message("3"))])
        (delivery,) = await consumer.receive()
        await consumer.ack([delivery])
        await consumer.close()

    run(scenario)


def test_a_consumer_that_joins_gets_its_keys_though_another_holds_messages_of_them(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        publisher, keys = broker.publisher(), [f"key-{number}" for number in range(50)]
        holder = await broker.subscribe("ns", [topics.TASK_ENGINE], "task-engine", "key-shared")
        await publisher.publish([(topics.TASK_ENGINE, message(f"first of {key}", key)) for key in keys])
        held: list[Delivery | Undeliverable] = []
        while len(held) < len(keys):
            held += await holder.receive()
        joined = await broker.subscribe("ns", [topics.TASK_ENGINE], "task-engine", "key-shared")
        await publisher.publish([(topics.TASK_ENGINE, message(f"second of {key}", key)) for key in keys])
        found = [0, 0]

        async def count(place: int, consumer: Consumer) -> None:
            while True:
                found[place] += len(await consumer.receive())

        counting = [asyncio.create_task(count(*each)) for each in enumerate((holder, joined))]
        while sum(found) < len(keys):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in counting:
            task.cancel()
        assert found[1] > 0, "some keys have moved"
        await asyncio.gather(holder.close(), joined.close())

    run(scenario)


def test_a_consumer_leaves_at_once_though_others_share_its_temporary_subscription(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is woken, so that nobody has to wait until it is given up."""
    monkeypatch.setattr("perdure_runtime.adapters.pulsar.consumer._JOIN_S", 3_600)

    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        first, second = [await broker.subscribe("ns", [topics.WORKER_HELLO], "sweep", "failover") for _ in range(2)]
        await first.close()
        await second.close()

    run(scenario)


def test_a_letter_waits_for_whoever_comes_to_read_it(run: Callable[[Scenario], None]) -> None:
    """A dead-letter topic has its subscription from the first letter on."""

    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        topic = topics.dead_letters(topics.TASK_ENGINE)
        await broker.publisher().publish([(topic, message("1"))])
        await broker.publisher().publish_raw(topic, "ns", b"\xff", "not ours")
        assert await admin.backlog("ns", topic, "dead-letters") == 2

    run(scenario)


def test_dead_letters_are_listed_newest_first_and_stay(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        topic = topics.dead_letters(topics.TASK_ENGINE)
        for name in "123":
            await broker.publisher().publish([(topic, message(name))])
        await broker.publisher().publish_raw(topics.dead_letters(topics.TIMERS), "ns", b"\xff", "not ours")
        for _ in range(2):
            raw, *rest = await broker.dead_letters("ns", 9)
            assert isinstance(raw, Undeliverable)
            assert (raw.topic, raw.data, raw.error) == (topics.dead_letters(topics.TIMERS), b"\xff", "not ours")
            assert ids(rest) == ["3", "2", "1"]
        assert len(await broker.dead_letters("ns", 2)) == 2
        assert not await broker.dead_letters("other", 9)
        consumer = await broker.subscribe("ns", [topic], "dead-letters", "shared")
        taken: list[Delivery | Undeliverable] = []
        while len(taken) < 3:
            taken += await consumer.receive()
        await consumer.ack(taken[1:2])
        await consumer.close()
        left = [letter for letter in await broker.dead_letters("ns", 9) if letter.topic == topic]
        while len(left) > 2:  # an acknowledgement is on its way for some milliseconds
            left = [letter for letter in await broker.dead_letters("ns", 9) if letter.topic == topic]
        assert ids(left) == ["3", "1"]

    run(scenario)


def test_publish_times_sort_as_times_and_not_as_text() -> None:
    times = ["2026-11-25T00:20:01Z", "2026-11-25T00:20:01.009Z", "2026-11-25T00:20:01.12Z", "2026-11-25T00:20:01.125Z"]
    assert sorted(times) != times
    assert sorted(times, key=published_at) == times
