"""What every broker must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from perdure_runtime.errors import AlreadyInUse, MessageTooLarge
from perdure_runtime.ports import Broker, Consumer, Delivery, SubscriptionType, Undeliverable
from perdure_schemas.common import Payload
from perdure_schemas.messages import SendSignal
from tests.contracts.worlds import BROKERS, LOCAL_BROKERS, PATIENCE_S, ids, message, open_broker

TOPIC = "workflow-engine"
Scenario = Callable[[Broker], Awaitable[None]]
Deliveries = list[Delivery | Undeliverable]


@pytest.fixture(params=BROKERS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    async def world(scenario: Scenario) -> None:
        async with open_broker(request.param, tmp_path) as broker:
            await asyncio.wait_for(scenario(broker), PATIENCE_S)

    return lambda scenario: asyncio.run(world(scenario))


async def publish(broker: Broker, *names: str, topic: str = TOPIC, key: str = "k") -> None:
    await broker.publisher().publish([(topic, message(name, key)) for name in names])


async def join(broker: Broker, type: SubscriptionType = "key-shared", topic: str = TOPIC) -> Consumer:
    return await broker.subscribe("ns", [topic], "engine", type)


async def receive(consumer: Consumer, count: int) -> Deliveries:
    """Exactly this many, else the test times out."""
    found: Deliveries = []
    while len(found) < count:
        found += await consumer.receive(count - len(found))
    return found


def _deaths(delivery: Delivery | Undeliverable) -> int:
    assert isinstance(delivery, Delivery)
    return delivery.deaths


async def nothing(consumer: Consumer) -> bool:
    """Whether nothing comes, though a published message would have by now."""
    try:
        await asyncio.wait_for(consumer.receive(), 0.05)
    except TimeoutError:
        return True
    return False


def test_messages_come_in_order_and_once(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        consumer = await join(broker)
        await publish(broker, "1", "2", "3")
        await publish(broker, "4")
        found = await receive(consumer, 4)
        assert ids(found) == ["1", "2", "3", "4"]
        assert [delivery.redeliveries for delivery in found] == [0, 0, 0, 0]
        await consumer.ack(found)
        await consumer.close()
        assert await nothing(await join(broker))

    run(scenario)


def test_what_came_before_the_first_subscription_is_kept(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        await publish(broker, "1", "2")
        assert ids(await receive(await join(broker), 2)) == ["1", "2"]

    run(scenario)


def test_each_subscription_gets_its_own(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        one = await join(broker)
        other = await broker.subscribe("ns", [TOPIC], "other", "failover")
        elsewhere = await broker.subscribe("ns2", [TOPIC], "engine", "failover")
        await publish(broker, "1")
        assert ids(await receive(one, 1)) == ids(await receive(other, 1)) == ["1"]
        assert await nothing(elsewhere)

    run(scenario)


def test_a_subscription_outlives_its_consumers(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        await (await join(broker)).close()
        await publish(broker, "1")
        assert ids(await receive(await join(broker), 1)) == ["1"]

    run(scenario)


def test_nacked_messages_come_again_in_order_not_before_the_delay(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        consumer = await join(broker)
        await publish(broker, "1", "2")
        first = await receive(consumer, 2)
        began = asyncio.get_running_loop().time()
        await consumer.nack(first, 60)
        await publish(broker, "3")
        assert ids(await receive(consumer, 1)) == ["3"]
        again = await receive(consumer, 2)
        assert asyncio.get_running_loop().time() - began >= 0.055
        assert ids(again) == ["1", "2"]
        assert [delivery.redeliveries for delivery in again] == [1, 1]
        await consumer.ack(first)  # of a delivery that was handed back: it must not count for the new one
        await consumer.nack(again, 0)
        assert ids(await receive(consumer, 2)) == ["1", "2"]

    run(scenario)


def test_closing_hands_back_at_once(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        one = await join(broker, "shared")
        await publish(broker, "1", "2")
        await receive(one, 2)
        other = await join(broker, "shared")
        await one.close()
        again = await receive(other, 2)
        assert ids(again) == ["1", "2"]
        assert {delivery.redeliveries for delivery in again} <= {0, 1}

    run(scenario)


@pytest.mark.parametrize("run", LOCAL_BROKERS, indirect=True)  # the port lets a broker forget; Pulsar does
def test_our_own_queues_count_every_redelivery(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        await publish(broker, "1")
        for redeliveries in range(0, 8, 2):  # once handed back by name, once by closing
            consumer = await join(broker, "shared")
            for more in range(2):
                (delivery,) = await receive(consumer, 1)
                assert delivery.redeliveries == redeliveries + more
                if not more:
                    await consumer.nack([delivery], 0)
            await consumer.close()

    run(scenario)


def test_who_hands_back_has_not_died(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        await publish(broker, "1")
        for handed_back in range(0, 8, 2):  # once by name, once by closing
            consumer = await join(broker, "shared")
            (delivery,) = await receive(consumer, 1)
            assert _deaths(delivery) == 0
            assert delivery.redeliveries <= handed_back
            await consumer.nack([delivery], 0)
            await receive(consumer, 1)
            await consumer.close()

    run(scenario)


def test_keys_are_shared_also_with_whoever_comes_while_another_holds_messages(
    run: Callable[[Scenario], None],
) -> None:
    """Who gets the second message of a key while the first is held is the broker's: no handler needs the order."""

    async def scenario(broker: Broker) -> None:
        one = await join(broker)
        keys = [f"key-{number}" for number in range(40)]
        for key in keys:
            await publish(broker, f"{key}.1", key=key)
        held = await receive(one, 40)
        other = await join(broker)
        for key in keys:
            await publish(broker, f"{key}.2", key=key)
        await one.ack(held)
        found = await _by_consumer([one, other], 40)
        assert sorted(found[0] + found[1]) == sorted(f"{key}.2" for key in keys)
        await broker.publisher().publish([(TOPIC, message(f"{key}.3", key)) for key in keys])
        found = await _by_consumer([one, other], 40)
        assert sorted(found[0] + found[1]) == sorted(f"{key}.3" for key in keys)
        assert min(len(names) for names in found) >= 8, "both get a share of the keys, though they came in one batch"

    run(scenario)


@pytest.mark.parametrize("kind", LOCAL_BROKERS)
def test_a_key_stays_with_whoever_holds_messages_of_it(kind: str, tmp_path: Path) -> None:
    """Locality, not correctness: beside a held message, its consumer has the run in its memory."""

    async def scenario(broker: Broker) -> None:
        one = await join(broker)
        keys = [f"key-{number}" for number in range(40)]
        for key in keys:
            await publish(broker, f"{key}.1", key=key)
        await receive(one, 40)
        other = await join(broker)
        for key in keys:
            await publish(broker, f"{key}.2", key=key)
        assert await nothing(other)

    async def world() -> None:
        async with open_broker(kind, tmp_path) as broker:
            await asyncio.wait_for(scenario(broker), PATIENCE_S)

    asyncio.run(world())


async def _by_consumer(consumers: Sequence[Consumer], count: int) -> list[list[str]]:
    """What each receives, acknowledged, until all of them have so many."""
    found: list[list[str]] = [[] for _ in consumers]
    enough = asyncio.Event()

    async def take(consumer: Consumer, names: list[str]) -> None:
        while True:
            deliveries = list(await consumer.receive())
            names += ids(deliveries)
            await consumer.ack(deliveries)
            if sum(len(each) for each in found) >= count:
                enough.set()

    takers = [asyncio.ensure_future(take(*each)) for each in zip(consumers, found, strict=True)]
    await enough.wait()
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)
    return found


def test_work_spreads_over_those_who_wait(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        topic = "task-run.charge"
        consumers = [await join(broker, "shared", topic) for _ in range(2)]
        waiting = [asyncio.ensure_future(consumer.receive(5)) for consumer in consumers]
        await asyncio.sleep(0.01)
        await publish(broker, *"123456", topic=topic)
        first, second = await asyncio.gather(*waiting)
        assert first
        assert second

    run(scenario)


def test_a_canceled_receive_loses_nothing(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        consumer = await join(broker, "shared")
        waiting = asyncio.ensure_future(consumer.receive())
        await asyncio.sleep(0.01)
        publishing = asyncio.ensure_future(publish(broker, "1"))
        waiting.cancel()
        await publishing
        assert ids(await receive(consumer, 1)) == ["1"]

    run(scenario)


def test_failover_has_one_active_consumer(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        consumers = [await join(broker, "failover"), await join(broker, "failover")]
        await publish(broker, "1", "2", key="a")
        await publish(broker, "3", key="b")
        waiting = [asyncio.ensure_future(receive(consumer, 3)) for consumer in consumers]
        done, (other,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert ids(done.pop().result()) == ["1", "2", "3"]
        other.cancel()
        standby = consumers.pop(waiting.index(other))
        assert await nothing(standby)
        await consumers[0].close()
        assert ids(await receive(standby, 3)) == ["1", "2", "3"]

    run(scenario)


WORK = pytest.mark.parametrize(("topic", "type"), [("workflow-run.order", "key-shared"), ("task-run.charge", "shared")])


@WORK
def test_who_pauses_keeps_what_it_received_and_leaves_the_rest_to_others(
    run: Callable[[Scenario], None], topic: str, type: SubscriptionType
) -> None:
    async def scenario(broker: Broker) -> None:
        one = await broker.subscribe("ns", [topic], "workers", type)
        await publish(broker, "1", topic=topic)
        held = await receive(one, 1)
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0.01)
        await one.pause()
        await one.pause()
        await publish(broker, "2", "3", topic=topic)
        other = await broker.subscribe("ns", [topic], "workers", type)
        if type == "key-shared":
            await one.ack(held)  # until then Pulsar may leave to it what has its keys
        found = await receive(other, 2)
        assert sorted(ids(found)) == ["2", "3"]
        await one.ack(held)
        await other.ack(found)
        await publish(broker, "4", topic=topic)
        assert ids(await receive(other, 1)) == ["4"]
        assert not waiting.done()
        await other.close()
        await one.resume()
        await one.resume()
        assert ids(list(await waiting)) == ["4"], "what was received before the pause is acknowledged"

    run(scenario)


@WORK
def test_who_pauses_and_resumes_meanwhile_can_still_hand_back(
    run: Callable[[Scenario], None], topic: str, type: SubscriptionType
) -> None:
    async def scenario(broker: Broker) -> None:
        consumer = await broker.subscribe("ns", [topic], "workers", type)
        await publish(broker, "1", topic=topic)
        held = await receive(consumer, 1)
        await consumer.pause()
        await consumer.resume()
        await publish(broker, "2", topic=topic)
        assert ids(await receive(consumer, 1)) == ["2"]
        await consumer.nack(held, 0)
        assert ids(await receive(consumer, 1)) == ["1"]
        await consumer.pause()
        await consumer.close()
        assert sorted(ids(await receive(await broker.subscribe("ns", [topic], "workers", type), 2))) == ["1", "2"]

    run(scenario)


def test_exclusive_refuses_a_second_consumer(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        holder = await join(broker, "exclusive")
        with pytest.raises(AlreadyInUse, match="engine"):
            await join(broker, "exclusive")
        await holder.close()
        await publish(broker, "1")
        assert ids(await receive(await join(broker, "exclusive"), 1)) == ["1"]

    run(scenario)


def test_an_inbox_lives_as_long_as_its_consumer(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        await publish(broker, "lost", topic="inbox.me")
        inbox = await broker.subscribe("ns", ["inbox.me"], "me", "exclusive")
        await publish(broker, "1", topic="inbox.me")
        assert ids(await receive(inbox, 1)) == ["1"]
        await inbox.close()
        await publish(broker, "lost", topic="inbox.me")
        assert await nothing(await broker.subscribe("ns", ["inbox.me"], "me", "exclusive"))

    run(scenario)


def test_a_message_over_the_limit_is_refused_with_its_batch(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        consumer = await join(broker)
        big = SendSignal(workflow_id="w", channel="c", payload=Payload("bytes", b"x" * 2**20), sender="s", number=1)
        with pytest.raises(MessageTooLarge, match=TOPIC):
            await broker.publisher().publish(
                [(TOPIC, message("1")), (TOPIC, msgspec.structs.replace(message("2"), body=big))]
            )
        assert await nothing(consumer)

    run(scenario)


def test_bytes_that_are_no_message_arrive_with_their_reason(run: Callable[[Scenario], None]) -> None:
    async def scenario(broker: Broker) -> None:
        letters = await broker.subscribe("ns", ["dlq.x"], "dead-letters", "shared")
        await broker.publisher().publish_raw("dlq.x", "ns", b"\xff", "not ours")
        (letter,) = await receive(letters, 1)
        assert isinstance(letter, Undeliverable)
        assert (letter.data, letter.error, letter.topic) == (b"\xff", "not ours", "dlq.x")
        await letters.ack([letter])
        await letters.close()
        assert await nothing(await broker.subscribe("ns", ["dlq.x"], "dead-letters", "shared"))

    run(scenario)
