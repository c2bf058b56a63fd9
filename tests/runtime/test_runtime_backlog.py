"""What waits for workers: one look at the broker serves many."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from perdure_api.__main__ import BACKLOG_AGE_S, backlog
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.pools import TopicBacklog
from tests.sdk.worker.engine import ahead_of_time

pytestmark = pytest.mark.asyncio


class Admin:
    """As Pulsar's, with what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False

    async def topics(self, namespace: str) -> list[str]:
        if self.away:
            raise StorageUnavailable("away")
        return ["task-run.pack", "workflow-engine", "workflow-run.order.1", "inbox.x", "dlq.task-run.pack"]

    async def of_workers(self, namespace: str, topic: str, subscription: str) -> TopicBacklog:
        self.asked.append(topic)
        await asyncio.sleep(0)
        return TopicBacklog(topic, len(self.asked), 0)


async def test_all_who_ask_within_two_seconds_get_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = ahead_of_time(monkeypatch)
    admin = Admin()
    read = backlog(cast(PulsarAdmin, cast(Any, admin)), "ns")
    first = await asyncio.gather(*(read() for _ in range(20)))
    assert admin.asked == ["task-run.pack", "workflow-run.order.1"]
    ahead.seconds += BACKLOG_AGE_S / 2
    assert await read() == first[0]
    ahead.seconds += BACKLOG_AGE_S / 2
    assert await read() != first[0]
    assert len(admin.asked) == 4


async def test_a_look_that_failed_serves_nobody_else_and_one_who_leaves_takes_it_from_nobody() -> None:
    admin = Admin()
    read = backlog(cast(PulsarAdmin, cast(Any, admin)), "ns")
    admin.away = True
    with pytest.raises(StorageUnavailable):
        await read()
    admin.away = False
    leaving, staying = asyncio.ensure_future(read()), asyncio.ensure_future(read())
    await asyncio.sleep(0)
    leaving.cancel()
    assert [each.topic for each in await staying] == ["task-run.pack", "workflow-run.order.1"]
