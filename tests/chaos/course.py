"""The course of one deployment: the first run, a load, what disturbs it, and the audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from perdure import Client
from perdure.errors import AlreadyStarted, Unavailable
from perdure_runtime.adapters.pulsar.names import address
from perdure_schemas import topics
from tests.chaos.audit import Report, audit_effects, audit_runs, audit_timers, marks_of
from tests.chaos.leftovers import Wiretap, audit_leftovers, audit_read_model
from tests.chaos.load import Load, Promise
from tests.chaos.nemesis import Nemesis
from tests.chaos.stack import REPLICAS, Stack

USERS = 12
PATIENCE_S = 240.0
"""After the last fault, until each accepted run has ended: no figure, and a machine under load takes its time."""
SHORT_PATIENCE_S = 20.0
"""Where a broken build is to be seen: twice what recovery may take."""
_WARM_UP_S = 180.0
_TASKS = ("increment", "shaky")
Disturb = Callable[[], Awaitable[None]]


@asynccontextmanager
async def deployed(stack: Stack, namespace: str, mutations: Sequence[str] = ()) -> AsyncIterator[Client]:
    """A client of a new deployment that has answered its first run."""
    await stack.deploy(namespace, mutations)
    async with stack.supervised(), Client.connect(stack.api_url, namespace=namespace) as client:
        async with asyncio.timeout(_WARM_UP_S):
            while not await _answers(client):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        yield client


async def _answers(client: Client) -> bool:
    try:
        await client.execute("hello", 1, id="warm-up", conflict="use-existing", retention=1.0)
    except Unavailable:
        return False
    except AlreadyStarted:
        pass  # it has ended, and whoever asked did not hear of it
    return True


async def load_and_disturb(stack: Stack, load: Load, disturb: Disturb, patience_s: float) -> list[Promise]:
    """What was accepted, once all of it has ended; or what of it has, when patience has."""
    running = asyncio.create_task(load.run())
    try:
        await disturb()
        load.close()
        stack.heal()
        await asyncio.wait([running], timeout=patience_s)
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.wait([running])
    return list(load.promises.values())


async def chaos(
    client: Client, stack: Stack, nemesis: Nemesis, *, seconds: float, users: int, tell: Callable[[str], None]
) -> Report:
    """All faults of a seed, and all that the auditor can see."""
    report = Report()
    names = [address("perdure", stack.namespace, topics.task_run(name)) for name in _TASKS]
    wiretap = await asyncio.to_thread(Wiretap, stack.pulsar().url, names)

    async def disturb() -> None:
        await nemesis.run(seconds)
        tell("no more faults; every run that was accepted has to end")

    promises = await load_and_disturb(stack, Load(client, nemesis.seed, users), disturb, PATIENCE_S)
    audit_what_ran(report, stack, promises)
    await audit_read_model(report, client, stack, promises)
    published = await asyncio.to_thread(wiretap.published)
    report.published_twice = sum(count - 1 for count in published.values())
    await asyncio.to_thread(wiretap.close)
    tell("waiting for the end of retention")
    await audit_leftovers(report, client, stack)
    return report


def audit_what_ran(report: Report, stack: Stack, promises: Sequence[Promise]) -> None:
    """What needs no look at topics and tables."""
    marks = marks_of(stack.effects.read_text())
    audit_runs(report, promises)
    audit_effects(report, promises, marks)
    audit_timers(report, promises, marks)


async def while_engines_are_killed(client: Client, stack: Stack, seed: int, seconds: float) -> Report:
    """A short load: what a build loses that is wrong about what a death leaves behind."""

    async def disturb() -> None:
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until:
            await asyncio.sleep(2)
            member = stack.members[f"workflow_engine-{number % REPLICAS}"]
            member.kill()
            member.start()
            number += 1

    report = Report()
    load = Load(client, seed, USERS)
    audit_what_ran(report, stack, await load_and_disturb(stack, load, disturb, SHORT_PATIENCE_S))
    return report
