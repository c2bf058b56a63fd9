"""Deaths of workers, which Pulsar does not count: with real processes, and what is told of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import Worker, task
from perdure_runtime.adapters.pulsar import PulsarBroker, PulsarSettings, begun
from perdure_runtime.adapters.pulsar.admin import open_admin
from perdure_runtime.adapters.pulsar.names import BEGUN
from perdure_runtime.ports import Consumer, Delivery
from perdure_schemas import topics
from perdure_schemas.common import Address, Payload, TaskOptions
from perdure_schemas.messages import AttemptOutcome, Message, RunTask
from tests.contracts.worlds import message
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)
TOPIC = topics.task_run("act")
APP = """
import asyncio, os, sys
from pathlib import Path
from perdure import Worker, task

@task
async def act(deadly: bool) -> str:
    if deadly:
        with Path(sys.argv[2]).open("a") as log:
            log.write("x")
        os._exit(9)
    return "done"

asyncio.run(Worker.connect(sys.argv[1], [act], namespace="ns").run())
"""


@task
async def rest(deadly: bool) -> None:
    await asyncio.sleep(600)


@task
async def act(deadly: bool) -> str:
    return "done"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> PulsarSettings:
    found = clean.pulsar_settings()
    monkeypatch.setenv("PERDURE_PULSAR_TENANT", found.tenant)
    return found


def attempt(number: int, *, deadly: bool, name: str = "act") -> Message:
    run = RunTask(
        task_id=f"t-{number}",
        attempt_id=f"a-{number}",
        attempt=1,
        name=name,
        args=Payload("json", msgspec.json.encode([deadly])),
        options=TaskOptions(),
        answer_to=[Address(topics.TASK_ENGINE, f"t-{number}")],
    )
    return Message(id=f"m-{number}", namespace="ns", key=f"t-{number}", at=1, body=run)


class Outcomes:
    """Of attempts, as they come."""

    def __init__(self, engine: Consumer) -> None:
        self._engine = engine
        self.seen: dict[str, AttemptOutcome] = {}

    async def read(self) -> None:
        while True:
            batch = await self._engine.receive()
            for delivery in batch:
                if isinstance(delivery, Delivery) and isinstance(outcome := delivery.message.body, AttemptOutcome):
                    self.seen.setdefault(outcome.attempt_id, outcome)
            await self._engine.ack(batch)

    async def of(self, *attempts: str) -> None:
        while not self.seen.keys() >= set(attempts):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def engine(settings: PulsarSettings) -> AsyncIterator[tuple[PulsarBroker, Outcomes]]:
    async with asyncio.timeout(240), clean.pulsar_broker(["ns"], settings) as broker:
        outcomes = Outcomes(await broker.subscribe("ns", [topics.TASK_ENGINE], "task-engine", "key-shared"))
        reading = asyncio.create_task(outcomes.read())
        try:
            yield broker, outcomes
        finally:
            reading.cancel()


def test_what_kills_its_worker_fails_and_its_neighbours_do_not(settings: PulsarSettings, tmp_path: Path) -> None:
    """Each process is alone: what it told is there when all workers are away. The first death may go uncounted."""
    log = tmp_path / "deaths"
    arguments = ["-c", APP, settings.url, str(log)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}

    async def scenario() -> None:
        async with engine(settings) as (broker, outcomes):
            await broker.publisher().publish([(TOPIC, attempt(number, deadly=number == 3)) for number in range(8)])
            answered = asyncio.create_task(outcomes.of(*(f"a-{number}" for number in range(8))))
            process = None
            while not answered.done():
                process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)
                died = asyncio.create_task(process.wait())
                await asyncio.wait([died, answered], return_when=asyncio.FIRST_COMPLETED)
            assert process is not None
            process.kill()
            await process.wait()
            failure = outcomes.seen.pop("a-3").failure
            assert failure is not None
            assert failure.name == "WorkerDied"
            assert {outcome.outcome for outcome in outcomes.seen.values()} == {"completed"}
            assert 3 <= len(log.read_text()) <= 4

    asyncio.run(scenario())


def test_workers_that_drain_do_not_count(settings: PulsarSettings) -> None:
    async def scenario() -> None:
        async with engine(settings) as (broker, _):
            topic = topics.task_run("rest")
            await broker.publisher().publish([(topic, attempt(1, deadly=False, name="rest"))])
            for rolls in range(4):
                worker = Worker.connect(settings.url, [rest], namespace="ns", grace_seconds=0)
                running = asyncio.create_task(worker.run())
                await told(settings, 3 * rolls + 2)  # a probe at the start, begun, handed back
                worker.drain()
                await running
            consumer = await broker.subscribe("ns", [topic], "workers", "shared")
            (delivery,) = await consumer.receive(1)
            assert isinstance(delivery, Delivery)
            assert delivery.deaths == 0

    asyncio.run(scenario())


def test_what_is_over_soon_is_not_told_of(settings: PulsarSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a busy machine, too, so what is soon is long here."""
    monkeypatch.setattr(begun, "SUSPECT_MS", 60_000)
    monkeypatch.setattr(begun, "MARK_AFTER_SECONDS", 60.0)

    async def scenario() -> None:
        async with engine(settings) as (broker, outcomes):
            worker = Worker.connect(settings.url, [act], namespace="ns")
            running = asyncio.create_task(worker.run())
            await worker.ready.wait()
            before = await counter(settings)
            for number in range(10):
                await broker.publisher().publish([(TOPIC, attempt(number, deadly=False))])
                await outcomes.of(f"a-{number}")
            assert await counter(settings) == before
            worker.drain()
            await running

    asyncio.run(scenario())


def test_what_runs_for_long_and_dies_counts(settings: PulsarSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "SUSPECT_MS", 60_000)

    async def scenario() -> None:
        async with engine(settings) as (broker, _):
            await broker.publisher().publish([(TOPIC, message(id)) for id in "12"])
            for deaths in range(3):
                own = PulsarBroker(settings)
                taken = await own.subscribe("ns", [TOPIC], "workers", "shared")
                held = [each for _ in range(2) for each in await taken.receive(1) if isinstance(each, Delivery)]
                held.sort(key=lambda each: each.message.id)
                assert [each.deaths for each in held] == [deaths, 0]
                before = await counter(settings)
                assert taken.begin(held) is None
                assert taken.spare(held[1:]) is None
                await told(settings, before + 1)
                await asyncio.to_thread(own._client.close)

    asyncio.run(scenario())


async def counter(settings: PulsarSettings) -> int:
    """Messages that workers told each other."""
    async with open_admin(settings) as admin:
        stats: dict[str, Any] | None = await admin._get(f"persistent/{settings.tenant}/ns/{BEGUN}/stats")
    return 0 if stats is None else int(stats["msgInCounter"])


async def told(settings: PulsarSettings, messages: int) -> None:
    while await counter(settings) < messages:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def test_what_was_told_is_kept_while_all_workers_are_away(settings: PulsarSettings) -> None:
    async def scenario() -> None:
        async with open_admin(settings) as admin:
            await admin.init("ns")
            await admin.init("ns")
            path = f"persistent/{settings.tenant}/ns/{BEGUN}/retention"
            while (found := await admin._get(path)) is None:  # noqa: ASYNC110  # it is written to a topic, too
                await asyncio.sleep(0.05)
            assert found == {"retentionTimeInMinutes": 15, "retentionSizeInMB": -1}

    asyncio.run(scenario())
