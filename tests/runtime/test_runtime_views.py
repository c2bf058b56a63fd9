"""Which runs the workflow engine forgets when it knows too many."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from perdure import Client, sleep, workflow
from perdure._client import requests
from perdure_runtime import workflow_views
from perdure_runtime.actor import Actor
from perdure_runtime.poison import Intake
from perdure_runtime.ports import Head
from perdure_runtime.workflow_views import Views
from perdure_schemas import topics
from perdure_schemas.common import Payload, RunOptions
from perdure_schemas.messages import StartWorkflow
from tests.runtime.parts import NAMESPACE, World

MAX = 50


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_views, "ACTORS_MAX", MAX)


def views() -> Views:
    return Views(World().ports, NAMESPACE, cast(Intake, None))


def used(known: Views, workflow_id: str) -> Actor:
    """One message of the run was handled."""
    actor = known.reserve(workflow_id)
    actor.head = Head(version=1, run_id="r", seq=1, runs=1)
    known.rest(actor)
    return actor


def test_those_used_longest_ago_are_forgotten() -> None:
    known = views()
    for number in range(MAX):
        used(known, str(number))
    used(known, "0")
    used(known, "new")
    assert len(known) <= MAX
    assert known.find("0") is not None
    assert known.find("1") is None
    assert known.find("49") is not None


def test_runs_that_clients_await_are_forgotten_too() -> None:
    known = views()
    for number in range(3 * MAX):
        used(known, str(number)).waiters.append("inbox")
    assert len(known) <= MAX


def test_what_is_in_use_is_kept_and_holds_nobody_up() -> None:
    known = views()
    for number in range(MAX // 2):
        used(known, f"busy{number}").busy = True
    for number in range(3 * MAX):
        used(known, str(number))
    assert len(known) <= MAX
    assert all(known.find(f"busy{number}") is not None for number in range(MAX // 2))


@workflow
async def napping(number: int) -> int:
    await sleep(1)
    return number


def test_a_client_hears_the_end_of_a_run_that_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not start the run, so that it is told for asking alone."""
    monkeypatch.setattr(requests, "ASK_AGAIN_SECONDS_FIRST", 0.2)

    def start(number: int) -> StartWorkflow:
        args, name = Payload("json", b"[%d]" % number), f"n{number}"
        return StartWorkflow(workflow_id=name, run_id=name, name="napping", args=args, options=RunOptions())

    async def scenario() -> None:
        async with asyncio.timeout(60), Client.embedded(napping) as client:
            for number in range(2 * MAX):
                asked = client.handle(f"n{number}")._requests
                await asked.backend.publish(topics.WORKFLOW_ENGINE, asked.message(f"n{number}", start(number)))
            results = [client.handle(f"n{number}").result() for number in range(2 * MAX)]
            assert await asyncio.gather(*results) == list(range(2 * MAX))

    asyncio.run(scenario())
