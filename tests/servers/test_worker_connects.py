"""A program's own worker on a real broker."""

from __future__ import annotations

import asyncio

import pytest

from perdure import PerdureError, Worker, task
from perdure_runtime.ports import Delivery
from perdure_schemas import topics
from perdure_schemas.messages import WorkerHello
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)


@task
async def add_one(n: int) -> int:
    return n + 1


def test_a_worker_connects_to_brokers_with_the_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = clean.pulsar_settings()
    monkeypatch.setenv("PERDURE_PULSAR_TENANT", settings.tenant)

    async def run() -> None:
        async with asyncio.timeout(60), clean.pulsar_broker(["ns"], settings) as broker:
            hellos = await broker.subscribe("ns", [topics.WORKER_HELLO], "test", "exclusive")
            worker = Worker.connect(settings.url, [add_one], namespace="ns", build="b7")
            running = asyncio.create_task(worker.run())
            (delivery,) = await hellos.receive(1)
            assert isinstance(delivery, Delivery)
            assert isinstance(hello := delivery.message.body, WorkerHello)
            assert (hello.worker, hello.build, hello.tasks) == (worker.id, "b7", ["add_one"])
            worker.drain()
            await running

    asyncio.run(run())


def test_a_wrong_setting_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_PROBE_PORT", "no-number")
    with pytest.raises(PerdureError, match=r"^PERDURE_PROBE_PORT: "):
        asyncio.run(Worker.connect("pulsar://127.0.0.1:1", [add_one]).run())
