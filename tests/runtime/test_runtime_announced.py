"""What workers have announced, by the topics that they subscribe to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from perdure._client.unknown import Known
from perdure_api.__main__ import Looks
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin
from perdure_runtime.adapters.queues import QueueBroker
from perdure_runtime.adapters.sqlite import open_sqlite
from perdure_runtime.announced import Announced, of_topics
from perdure_runtime.clock import SystemClock
from perdure_runtime.pools import topics_of
from perdure_schemas import topics
from perdure_schemas.messages import CancelTask, Message

HAVE = [
    topics.workflow_run("order"), topics.workflow_run("order", "b1"),
    topics.task_run("Payments.charge"), topics.task_run("Payments.charge", "b1"),
]  # fmt: skip


def test_names_are_those_without_a_build() -> None:
    assert of_topics([*HAVE, topics.WORKFLOW_ENGINE]) == Announced(["order"], ["Payments.charge"])


def test_a_name_may_begin_as_another_one_and_go_on_after_a_dot() -> None:
    names = ("billing", "billing.refund")
    have = [topics.workflow_run(name, build) for name in names for build in (None, "b1")]
    assert of_topics(have).workflows == ["billing", "billing.refund"]


async def wanted(broker: QueueBroker, topic: str) -> None:
    """Something is published for a worker."""
    body = CancelTask(task_id="t")
    await broker.publisher().publish([(topic, Message(id="m", namespace="ns", key="t", at=0, body=body, emitter=""))])


def test_what_waits_for_a_worker_is_not_announced_by_that() -> None:
    async def work() -> None:
        broker = cast(QueueBroker, memory_ports(SystemClock()).broker)
        await wanted(broker, topics.workflow_run("nosuch"))
        await broker.subscribe("ns", HAVE, "workers", "shared")
        await broker.subscribe("other", [topics.workflow_run("elsewhere")], "workers", "shared")
        assert await broker.announced("ns") == Announced(["order"], ["Payments.charge"])

    asyncio.run(work())


def test_what_was_announced_is_known_after_a_restart(tmp_path: Path) -> None:
    async def work() -> None:
        for known in (Announced([], []), Announced(["order"], ["Payments.charge"])):
            opened = await open_sqlite(tmp_path / "db.sqlite", SystemClock())
            broker = cast(QueueBroker, opened.ports.broker)
            assert await broker.announced("ns") == known
            await (await broker.subscribe("ns", HAVE, "workers", "shared")).close()
            await opened.close()

    asyncio.run(work())


class Admin:
    """As Pulsar's: every topic has the subscription, those of `there` have consumers."""

    def __init__(self) -> None:
        self.there: set[str] = set(HAVE)

    async def topics(self, namespace: str) -> list[str]:
        return [*HAVE, topics.workflow_run("nosuch"), topics.WORKFLOW_ENGINE]

    async def consumed(self, namespace: str, topic: str, subscription: str) -> bool:
        assert (namespace, subscription) == ("ns", "workers")
        return topic in self.there


@pytest.mark.asyncio
async def test_of_a_cluster_workers_that_were_seen_are_remembered() -> None:
    admin: Any = Admin()
    read = Looks(cast(PulsarAdmin, admin), "ns").read
    assert await read() == Announced(["order"], ["Payments.charge"])
    admin.there.clear()
    assert await read() == Announced(["order"], ["Payments.charge"])


@pytest.mark.asyncio
async def test_who_makes_a_pool_announces_what_its_workers_will_have() -> None:
    admin: Any = Admin()
    made = []

    async def make(namespace: str, topic: str) -> None:
        made.append((namespace, topic))

    admin.make = make
    looks = Looks(cast(PulsarAdmin, admin), "ns")
    pool = topics_of("workflow", ["pack", "ship"], "2")
    await looks.make_pools(pool)
    assert made == [("ns", topic) for topic in pool]
    assert await looks.read() == Announced(["order", "pack", "ship"], ["Payments.charge"])


@pytest.mark.asyncio
async def test_one_look_at_the_topics_serves_all_who_ask() -> None:
    admin: Any = Admin()
    asked = 0

    async def consumed(*_: object) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return False

    admin.consumed = consumed
    known = Known(Looks(cast(PulsarAdmin, admin), "ns").read)
    told = await asyncio.gather(*(known.lacking("workflow", "order") for _ in range(50)))
    assert all("no worker has announced" in each for each in told)
    assert asked <= 3 * (len(HAVE) + 1)  # the first who asks has some patience, and looks again


@pytest.mark.asyncio
async def test_a_look_that_takes_long_goes_on_and_delays_only_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure_api.__main__.LOOK_WAIT_S", 0.01)
    admin: Any = Admin()
    go = asyncio.Event()

    async def consumed(*_: object) -> bool:
        await go.wait()
        return True

    admin.consumed = consumed
    known = Known(Looks(cast(PulsarAdmin, admin), "ns").read)
    assert await known.lacking("workflow", "order") == ""
    assert not known.has("workflow", "order")
    go.set()
    while not known.has("workflow", "order"):
        await known.lacking("workflow", "order")


@pytest.mark.asyncio
async def test_who_cannot_tell_is_not_asked_at_each_start() -> None:
    asked = 0

    async def silent() -> Announced | None:
        nonlocal asked
        asked += 1
        raise TimeoutError

    known = Known(silent)
    for _ in range(3):
        assert await known.lacking("workflow", "order") == ""
    assert asked == 1
