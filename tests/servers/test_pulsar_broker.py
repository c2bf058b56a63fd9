"""What the broker on Pulsar promises beyond the contracts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pulsar
import pytest

from perdure_runtime.adapters import pulsar as pulsar_adapter
from perdure_runtime.adapters.pulsar import PulsarBroker, PulsarSettings, consumer, publisher
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin, open_admin
from perdure_runtime.adapters.pulsar.letters import published_at
from perdure_runtime.adapters.pulsar.names import address, family
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.pools import TopicBacklog
from perdure_runtime.ports import Consumer, Delivery, SubscriptionType, Undeliverable
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


@pytest.mark.parametrize(
    ("topic", "type"), [(topics.task_run("pack", "1"), "shared"), (topics.workflow_run("order"), "key-shared")]
)
def test_what_waits_for_workers_is_told_apart_from_what_they_have(
    run: Callable[[Scenario], None], topic: str, type: SubscriptionType
) -> None:
    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        async def told(waiting: int, in_flight: int) -> None:
            while await admin.of_workers("ns", topic, "workers") != TopicBacklog(topic, waiting, in_flight):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

        await told(0, 0)
        for _ in range(2):
            await admin.make("ns", topic)
        assert not await admin.consumed("ns", topic, "workers")
        publisher = broker.publisher()
        for number in range(3):
            await publisher.publish([(topic, message(str(number), f"key-{number}"))])
        await told(3, 0)
        worker = await broker.subscribe("ns", [topic], "workers", type)
        held: list[Delivery | Undeliverable] = []
        while len(held) < 2:
            held += await worker.receive(2 - len(held))
        if type == "shared":  # what it may begin now is on its way to it; turns it has in store
            await told(1, 2)
            await worker.ack(held[:1])
            await told(1, 1)
        else:
            await told(0, 3)
            await worker.ack(held)
            await told(0, 1)
        await worker.close()
        await told(2 if type == "shared" else 1, 0)

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


def test_a_producer_that_did_not_send_in_time_is_not_used_again(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library may have given up its connection for good."""

    class Lame:
        closed = False

        def __init__(self, *answers: object) -> None:
            self.answers = answers

        def send_async(self, _: object, answer: Callable[[object, object], None]) -> None:
            for each in self.answers:
                answer(each, None)

        def close(self) -> None:
            self.closed = True
            raise pulsar.PulsarException("NotConnected")

    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        ours = broker.publisher()
        for lame, told in ((Lame(pulsar.Result.Timeout), "Result.Timeout"), (Lame(), "no answer for 0 s")):
            ours._producers._made["ns", topics.TIMERS, False] = lame
            with pytest.raises(StorageUnavailable, match=f"did not confirm: {told}"):
                await ours.publish([(topics.TIMERS, message("m", "k"))])
            monkeypatch.undo()
            await ours.publish([(topics.TIMERS, message("m", "k"))])
            monkeypatch.setattr(publisher, "_OVERDUE_S", 0.2)
            while not lame.closed:  # noqa: ASYNC110  # by a thread
                await asyncio.sleep(0.01)

    run(scenario)


def test_ways_that_take_their_time_are_made_once(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks after them sees meanwhile that some are not there."""
    monkeypatch.setattr(pulsar_adapter, "WATCH_SECONDS", 0.01)
    made: list[str] = []

    def slow(*args: Any, **how: Any) -> Any:
        made.append(args[1])
        time.sleep(0.1)
        return consumer.subscribe(*args, **how)

    monkeypatch.setattr(pulsar_adapter, "subscribe", slow)

    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        topic = topics.task_run("t")
        worker = await broker.subscribe("ns", [topic], "workers", "shared")
        await worker.renew()
        assert len(worker.ways.inlets) == len(made) == family(topic).fetchers

    run(scenario)


@pytest.mark.parametrize("topic", [topics.task_run("t"), topics.WORKFLOW_ENGINE])
def test_a_way_that_stays_without_a_connection_is_made_anew(
    topic: str, run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came on it and is not acknowledged comes again."""
    monkeypatch.setattr(consumer, "_LOST_S", 0.0)
    monkeypatch.setattr(pulsar_adapter, "WATCH_SECONDS", 0.1)

    async def scenario(broker: PulsarBroker, admin: PulsarAdmin, settings: PulsarSettings) -> None:
        worker = await broker.subscribe("ns", [topic], "workers", "shared")
        await broker.publisher().publish([(topic, message("first", "k"))])
        [first] = await worker.receive()
        lost = list(worker.ways.inlets)
        for inlet in lost:
            monkeypatch.setattr(inlet.consumer, "is_connected", lambda: False)
        [again] = await worker.receive()
        assert isinstance(first, Delivery)
        assert isinstance(again, Delivery)
        assert again.message.id == first.message.id
        while len(worker.ways.inlets) < len(lost):  # noqa: ASYNC110  # one after the other
            await asyncio.sleep(0.01)
        assert not set(worker.ways.inlets) & set(lost)
        await worker.ack([again])
        await broker.publisher().publish([(topic, message("next", "k"))])
        [later] = await worker.receive()
        assert isinstance(later, Delivery)
        assert later.message.id == "next"

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
