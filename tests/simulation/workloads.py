"""What clients do in a schedule, and what must come of it. Rewinds are in rewinds.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import convert
from perdure_schemas import topics
from perdure_schemas.common import Failure
from perdure_schemas.messages import RunResult
from tests.simulation import app
from tests.simulation.client import Client, Run

Script = Callable[[Client, random.Random], Awaitable[None]]


def expect(found: object, *allowed: object) -> None:
    if found not in allowed:
        raise AssertionError(f"{found!r}, expected {' or '.join(map(repr, allowed))}")


def completed(ended: RunResult, *allowed: object) -> None:
    """It completed with one of these values, or a delivery died so often that it was given up."""
    if ended.status == "failed" and gave_up(ended.failure):
        return
    expect(f"{ended.status} {describe(ended.failure)}".strip(), "completed")
    expect(convert.decode(ended.result), *allowed)


def gave_up(failure: Failure | None) -> bool:
    """Whether its reason is that three workers died with it, which in these worlds may happen to anybody."""
    return "WorkerDied" in describe(failure)


def describe(failure: Failure | None) -> str:
    """Every error of the chain."""
    return "" if failure is None else f"{failure.name}: {failure.message} {describe(failure.cause)}".strip()


async def hello(client: Client, rng: random.Random) -> None:
    run = await client.start(app.hello, 41, id="hello", wait=rng.random() < 0.5)
    completed(await client.result(run), 42)


async def sequence(client: Client, rng: random.Random) -> None:
    steps = rng.randint(2, 5)
    run = await client.start(app.sequence, steps, id="sequence")
    completed(await client.result(run), steps * 2)


async def fan_out(client: Client, rng: random.Random) -> None:
    width = rng.randint(2, 6)
    run = await client.start(app.fan_out, width, id="fan-out")
    completed(await client.result(run), sum(range(1, width + 1)))


async def in_order_of_arrival(client: Client, rng: random.Random) -> None:
    width = rng.randint(2, 4)
    run = await client.start(app.in_order_of_arrival, width, id="order")
    completed(await client.result(run), [number + 2 for number in range(width)])


async def branches(client: Client, rng: random.Random) -> None:
    width = rng.randint(2, 4)
    run = await client.start(app.branches, width, id="branches")
    completed(await client.result(run), sum((number + 1) * 2 for number in range(width)))


async def retries(client: Client, rng: random.Random) -> None:
    run = await client.start(app.retries, rng.randint(0, 3), rng.randint(0, 1), rng.randint(0, 4), id="retries")
    ended = await client.result(run)
    if "TimedOut" not in describe(ended.failure):  # so much may go wrong that no attempt ends in time
        completed(ended, [2, 3, 4])


async def timers(client: Client, rng: random.Random) -> None:
    naps = await client.start(app.naps, 3, rng.choice((0.1, 1.0, 90.0)), id="naps")
    race = await client.start(app.first_of_two, rng.uniform(0.0, 3.0), rng.uniform(0.0, 3.0), id="race")
    completed(await client.result(naps), 3)
    completed(await client.result(race), "in time", "too late")


async def by_chance(client: Client, rng: random.Random) -> None:
    run = await client.start(app.by_chance, id="chance")
    completed(await client.result(run), True)


async def children(client: Client, rng: random.Random) -> None:
    run = await client.start(app.parent, id="parent")
    completed(await client.result(run), 4)


async def last_wishes(client: Client, rng: random.Random) -> None:
    """What the last turn of a run asks for happens, though the run has ended."""
    listener = await client.start(app.listener, id="listener")
    run = await client.start(app.leaving_parent, "listener", id="leaving")
    ended = await client.result(run)
    completed(ended, 1)
    if ended.status == "completed":
        completed(await client.result(listener), 1)
    else:
        await client.control(listener, "terminate")


async def signals(client: Client, rng: random.Random) -> None:
    """The signals of one sender arrive in its order, whatever they overtake."""
    wanted = rng.randint(1, 4)
    early = rng.random() < 0.3
    starting = asyncio.ensure_future(_start_later(client, rng, wanted)) if early else None
    run = None if starting else await client.start(app.Collector, wanted, rng.random() < 0.5, id="collector")
    sent = []
    last = 0
    for number in range(wanted):
        last = await client.signal("collector", "votes", f"vote {number}", after=last)
        sent.append(f"vote {number}")
        await asyncio.sleep(rng.choice((0.0, 0.0, 0.3)))
    if starting is not None:
        run = await starting
    assert run is not None
    completed(await client.result(run), sent)


async def _start_later(client: Client, rng: random.Random, wanted: int) -> Run:
    await asyncio.sleep(rng.uniform(0.0, 0.5))
    return await client.start(app.Collector, wanted, False, id="collector")


async def updates(client: Client, rng: random.Random) -> None:
    run = await client.start(app.Collector, 2, False, id="updated")
    first = await client.update(run, "inject", "a")
    expect(first.status, "ok")
    expect(convert.decode(first.result), 1)
    expect(convert.decode((await client.query(run, "so_far")).result), 1)
    await client.signal("updated", "votes", "b")
    completed(await client.result(run), ["a", "b"])


async def relay(client: Client, rng: random.Random) -> None:
    """Continues as new after each signal."""
    wanted = rng.randint(2, 4)
    run = await client.start(app.relay, wanted, [], id="relay")
    last, sent = 0, []
    for number in range(wanted):
        last = await client.signal("relay", "votes", f"vote {number}", after=last)
        sent.append(f"vote {number}")
        await asyncio.sleep(rng.choice((0.0, 0.2)))
    ended = await client.result(run)
    while ended.status == "continued-as-new":
        ended = await client.result(Run("relay", ended.next_run_id))
    completed(ended, sent)


async def cancel(client: Client, rng: random.Random) -> None:
    """It reaches a run whose start was answered; nothing orders it after one that was only published."""
    answered = rng.random() < 0.7
    run = await client.start(app.careful, rng.choice((0.5, 30.0)), id="careful", wait=answered)
    await asyncio.sleep(rng.uniform(0.0, 2.0) if answered else 0.0)
    reply = await client.control(run, "cancel")
    ended = await client.result(run)
    if answered:
        expect(reply.status, "ok", "refused")
    if ended.status == "canceled":
        expect(reply.status, "ok", *([] if answered else ["not-found"]))  # asked once more, it may have come after it
    else:
        completed(ended, "done")


async def terminate(client: Client, rng: random.Random) -> None:
    run = await client.start(app.sequence, 5, id="doomed")
    other = await client.start(app.parent, id="doomed-parent")
    await asyncio.sleep(rng.uniform(0.0, 2.0))
    for each, value in ((run, 10), (other, 4)):
        reply = await client.control(each, "terminate")
        ended = await client.result(each)
        if ended.status == "terminated":
            expect(reply.status, "ok")
        else:
            completed(ended, value)


async def pause(client: Client, rng: random.Random) -> None:
    run = await client.start(app.sequence, 3, id="paused")
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    reply = await client.control(run, "pause")
    await asyncio.sleep(rng.uniform(0.0, 2.0))
    again = await client.control(run, "unpause") if reply.status == "ok" else reply
    ended = await client.result(run)
    if again.status != "ok":
        expect(ended.status, "completed", "failed")  # by a turn that was under way
    completed(ended, 6)


async def rivals(client: Client, rng: random.Random) -> None:
    """Two clients start the same workflow id."""
    policy = rng.choice(("fail", "use-existing", "terminate-existing"))
    other = Client(client.world, "client-1")
    first, second = await asyncio.gather(
        client.start(app.sequence, 2, id="rival", conflict_policy=policy),
        other.start(app.sequence, 2, id="rival", conflict_policy=policy),
    )
    for run in {first, second}:
        ended = await client.result(run)
        if ended.status != "terminated" or policy != "terminate-existing":
            completed(ended, 4)
    other.close()


async def impatience(client: Client, rng: random.Random) -> None:
    """A start that comes again and again, also after the end, under an id that is never used again: there is one run.

    What is left of the first try is a start without an answer.
    """
    other = Client(client.world, "client-1")
    once: dict[str, Any] = {"id": "once", "conflict_policy": "use-existing", "reuse_policy": "never"}
    await client.start(app.hello, 41, wait=False, **once)
    runs = []
    for _ in range(rng.randint(2, 4)):
        runs.append(await rng.choice((client, other)).start(app.hello, 41, **once))
        if rng.random() < 0.5:
            completed(await client.result(runs[-1]), 42)
        await asyncio.sleep(rng.choice((0.0, 0.3, 3.0)))
    expect(len(set(runs)), 1)
    completed(await client.result(runs[0]), 42)
    other.close()


async def reappearance(client: Client, rng: random.Random) -> None:
    """A start that is delivered once more after its run was purged begins nothing; another under its id does."""
    runs = [await client.start(app.fleeting, 41, id="again")]
    completed(await client.result(runs[0]), 42)
    if rng.random() < 0.5:
        runs.append(await client.start(app.fleeting, 41, id="again"))
        completed(await client.result(runs[1]), 42)
    await asyncio.sleep(app.SOON_PURGED_SECONDS * rng.choice((1.1, 3.0)))
    await client.publish(topics.WORKFLOW_ENGINE, client.starts[rng.choice(runs).run_id])
    if rng.random() < 0.5:
        await asyncio.sleep(5.0)
    completed(await client.result(await client.start(app.fleeting, 41, id="again")), 42)


async def tasks(client: Client, rng: random.Random) -> None:
    """Tasks that belong to no run."""
    plain = await client.run_task(app.add_one, 1)
    retried = await client.run_task(app.flaky, 1, rng.randint(0, 3))
    failed = await client.run_task(app.hopeless, 1)
    for answer in (plain, retried):
        if not gave_up(answer.failure):
            expect(answer.outcome, "completed")
            expect(convert.decode(answer.result), 2)
    expect(failed.outcome, "failed")


async def fickleness(client: Client, rng: random.Random) -> None:
    """Of an attempt that is run twice, the outcome that was told first counts."""
    run = await client.start(app.fickleness, 1, id="fickle")
    ended = await client.result(run)
    if ended.status != "failed" or "done before" not in describe(ended.failure):
        completed(ended, 2)


async def delegation(client: Client, rng: random.Random) -> None:
    """Somebody else completes the task."""
    run = await client.start(app.delegation, 1, id="delegation")
    while not app.Stage.delegated:
        await asyncio.sleep(0.1)
        if client.world.loop.time() > 300:
            break  # three workers died before it could be delegated
    for task_id in app.Stage.delegated[:1]:
        await client.complete_task(task_id, 7)
    completed(await client.result(run), 7)


RUNS: dict[str, Script] = {
    script.__name__.replace("_", "-"): script
    for script in (
        *(hello, sequence, fan_out, in_order_of_arrival, branches, retries, timers, by_chance),
        *(
            children,
            last_wishes,
            signals,
            updates,
            relay,
            cancel,
            terminate,
            pause,
            rivals,
            impatience,
            reappearance,
            tasks,
            fickleness,
            delegation,
        ),
    )
}
