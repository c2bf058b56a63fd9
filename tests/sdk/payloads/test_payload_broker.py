"""A worker's consumer: what has to be fetched holds up nothing else, counts as received, and is handed back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from perdure._payloads.broker import CodedBroker
from perdure._payloads.edge import Edge
from perdure.convert import Fetched
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Broker, Consumer, Delivery, Undeliverable
from perdure_schemas.blobs import Blob, made_of, reference
from perdure_schemas.common import Payload
from perdure_schemas.events import Recorded, SignalReceived
from perdure_schemas.messages import HistoryPage, Message, TaskResult

DATA = b'"large"'
SMALL, LARGE = Payload("json", b"1"), reference("json", made_of("b", DATA))


class Slow:
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def put(self, blob: Blob, data: bytes) -> None:
        raise NotImplementedError

    async def get(self, blob: Blob) -> bytes | None:
        await self.open.wait()
        return DATA


def with_consumer(work: Callable[[Broker, Consumer, Slow], Awaitable[None]]) -> None:
    async def main() -> None:
        inner, store = memory_ports(SystemClock()).broker, Slow()
        broker = CodedBroker(inner, Edge(None, "ns", lambda: store))
        consumer = await broker.subscribe("ns", ["t"], "s", "shared")
        async with asyncio.timeout(30):
            await work(inner, consumer, store)

    asyncio.run(main())


async def send(broker: Broker, **results: Payload) -> None:
    bodies = {id: TaskResult(task_id=id, outcome="completed", result=each) for id, each in results.items()}
    messages = [Message(id=id, namespace="ns", key="k", at=1, body=body) for id, body in bodies.items()]
    await broker.publisher().publish([("t", message) for message in messages])


def ids(received: Sequence[Delivery | Undeliverable]) -> list[str]:
    return [each.message.id for each in received if isinstance(each, Delivery)]


def test_what_is_fetched_holds_up_nothing_else_and_comes_with_its_value() -> None:
    async def work(broker: Broker, consumer: Consumer, store: Slow) -> None:
        await send(broker, a=LARGE, b=SMALL)
        assert ids(await consumer.receive()) == ["b"]
        later = asyncio.ensure_future(consumer.receive())
        await asyncio.sleep(0)
        await send(broker, c=SMALL)
        assert ids(await later) == ["c"]
        store.open.set()
        (fetched,) = await consumer.receive()
        assert isinstance(fetched, Delivery)
        assert isinstance(fetched.message.body, TaskResult)
        result = fetched.message.body.result
        assert isinstance(result, Fetched)
        assert (result.encoding, result.data, result.reference) == ("json", DATA, LARGE)
        await consumer.ack([fetched])

    with_consumer(work)


def test_a_page_of_a_history_is_given_out_unopened() -> None:
    """Whether anybody wants it is not known here."""

    async def work(broker: Broker, consumer: Consumer, store: Slow) -> None:
        event = SignalReceived(channel="c", payload=LARGE, sender="s", number=1)
        records = [Recorded(seq=1, at=1, cause="c", event=event)]
        page = HistoryPage(workflow_id="w", run_id="r", events=records, after_seq=0, last_seq=1)
        await broker.publisher().publish([("t", Message(id="p", namespace="ns", key="k", at=1, body=page))])
        (received,) = await consumer.receive()
        assert isinstance(received, Delivery)
        assert received.message.body == page

    with_consumer(work)


def test_what_is_being_fetched_counts_as_received() -> None:
    async def work(broker: Broker, consumer: Consumer, store: Slow) -> None:
        await send(broker, a=LARGE, b=LARGE, c=SMALL)
        receiving = asyncio.ensure_future(consumer.receive(2))
        done, _ = await asyncio.wait([receiving], timeout=0.05)
        assert not done, "both slots are taken"
        store.open.set()
        assert ids(await receiving)
        assert "c" not in ids(await receiving)

    with_consumer(work)


def test_who_stops_receiving_hands_back_what_was_not_given_out() -> None:
    async def work(broker: Broker, consumer: Consumer, store: Slow) -> None:
        await send(broker, a=LARGE)
        receiving = asyncio.ensure_future(consumer.receive())
        await asyncio.wait([receiving], timeout=0.05)
        receiving.cancel()
        await asyncio.wait([receiving])
        other = await broker.subscribe("ns", ["t"], "s", "shared")
        assert ids(await other.receive()) == ["a"]
        await consumer.close()

    with_consumer(work)
