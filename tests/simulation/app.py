"""The tasks and workflows that the simulated workers run."""

from __future__ import annotations

import asyncio
import random

from perdure import (
    Channel,
    ChildFailed,
    NonRetryable,
    Registry,
    Retry,
    TaskFailed,
    all_of,
    branch,
    channel,
    completed,
    continue_as_new,
    current_task,
    info,
    inline,
    now,
    query,
    signal,
    sleep,
    task,
    timer,
    update,
    workflow,
)
from tests.simulation.ledger import Ledger


class Stage:
    """The world outside, as user code sees it. One schedule at a time uses it."""

    ledger: Ledger
    dice: random.Random
    """For what is done inline: another value each time it is executed."""
    repaired: set[str] = set()
    """Names of services that work by now."""
    delegated: list[str] = []
    """Ids of tasks that somebody else completes."""
    version = 1
    """Of the code: people edit it, and workers restart with it."""

    @classmethod
    def set(cls, ledger: Ledger, seed: int | str) -> None:
        cls.ledger, cls.dice = ledger, random.Random(f"stage {seed}")
        cls.repaired, cls.delegated, cls.version = set(), [], 1


RETENTION_SECONDS = 3_600
"""Of every run: so long after its end nothing may be left of it."""
SOON_PURGED_SECONDS = 60
kept = workflow(retention=RETENTION_SECONDS)


def appear() -> None:
    Stage.ledger.executed(current_task().attempt_id)


# --- tasks ------------------------------------------------------------------------------------------


@task
async def add_one(number: int) -> int:
    appear()
    return number + 1


@task
def double(number: int) -> int:
    """A plain function."""
    appear()
    return number * 2


@task
async def slow(number: int, seconds: float) -> int:
    appear()
    await asyncio.sleep(seconds)
    return number + 1


@task(retry=Retry(attempts=8, initial=0.2, max=1.0))
async def flaky(number: int, fails: int) -> int:
    """Its first attempts fail."""
    appear()
    if current_task().attempt <= fails:
        raise ConnectionError(f"attempt {current_task().attempt}")
    return number + 1


@task(retry=Retry(attempts=4, initial=0.1, max=0.4), timeout=1.0, total_timeout=60.0)
async def hanging(number: int, hangs: int) -> int:
    """Its first attempts hang."""
    appear()
    if current_task().attempt <= hangs:
        await asyncio.sleep(3_600)
    return number + 1


@task(retry=Retry(attempts=10, initial=0.1, max=0.4), heartbeat_timeout=2.0, queue_timeout=20.0)
async def beating(number: int, beats: int) -> int:
    appear()
    for beat in range(beats):
        current_task().heartbeat(beat)
        await asyncio.sleep(0.4)
    return number + 1


class Hopeless(NonRetryable):
    """Nothing would help."""


@task(retry=Retry(attempts=5, initial=0.2))
async def hopeless(number: int) -> int:
    appear()
    raise Hopeless(str(number))


@task
async def gated(service: str, number: int) -> int:
    """Fails until the service is repaired."""
    appear()
    if service not in Stage.repaired:
        raise ConnectionError(f"{service} does not answer")
    return number + 1


@task
async def fickle(number: int) -> int:
    """Goes well the first time that it is run, and at no other."""
    appear()
    if Stage.ledger.attempts[current_task().attempt_id].executed > 1:
        raise ConnectionError("it was done before")
    return number + 1


@task(total_timeout=600.0)
async def delegating(number: int) -> int:
    appear()
    current_task().delegate()
    Stage.delegated.append(current_task().id)
    return number


# --- workflows --------------------------------------------------------------------------------------


@kept
async def hello(number: int) -> int:
    return await add_one(number)


@workflow(retention=SOON_PURGED_SECONDS)
async def fleeting(number: int) -> int:
    return await add_one(number)


@kept
async def sequence(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await add_one(number)
    return await double(number)


@kept
async def fan_out(width: int) -> int:
    return sum(await all_of([add_one(number) for number in range(width)]))


@kept
async def in_order_of_arrival(width: int) -> list[int]:
    """What it does next depends on which one ended first."""
    order: list[int] = []
    async for done in completed([slow(number, 0.0) for number in range(width)]):
        order.append(await add_one(await done))
    return sorted(order)


@kept
async def branches(width: int) -> int:
    async def chain(number: int) -> int:
        return await double(await add_one(number))

    return sum(await asyncio.gather(*[branch(chain(number)) for number in range(width)]))


@kept
async def retries(fails: int, hangs: int, beats: int) -> list[int]:
    first, second, third = flaky(1, fails), hanging(2, hangs), beating(3, beats)
    try:
        await hopeless(4)
    except TaskFailed:
        return [await first, await second, await third]
    raise AssertionError("the hopeless succeeded")


@kept
async def first_of_two(seconds: float, patience: float) -> str:
    """The loser runs on when the run has ended."""
    work = slow(1, seconds)
    return "in time" if await (work | timer(patience)) is not None else "too late"


@kept
async def naps(count: int, seconds: float) -> int:
    before, slept = now(), 0
    for _ in range(count):
        await sleep(seconds)
        assert (now() - before).total_seconds() >= seconds * 0.999
        before, slept = now(), slept + 1
    return slept


@kept
async def by_chance() -> bool:
    """The value of every inline call is the one that was recorded, in each of them."""
    first = inline(lambda: Stage.dice.randint(0, 10**9))
    again = await add_one(first)
    second = inline(lambda: Stage.dice.randint(0, 10**9))
    return again == first + 1 and await add_one(second) == second + 1


@kept
async def child(number: int, fails: bool) -> int:
    number = await add_one(number)
    if fails:
        return await hopeless(number)
    return await double(number)


@kept
async def patient_child() -> str:
    return str(await channel("never").receive())


@kept
async def parent() -> int:
    good, bad = child(1, False), child(2, True)
    try:
        await bad
    except ChildFailed:
        return await good
    raise AssertionError("the bad child succeeded")


@kept
async def leaving_parent(listener: str) -> int:
    """Its last turn starts a child that it abandons, sends a signal, and leaves two children to their close policy."""
    patient_child.options(close_policy="cancel")()
    patient_child.options(close_policy="terminate")()
    number = await add_one(0)
    child.options(close_policy="abandon", id=f"abandoned-{info().workflow_id}")(5, False)
    signal(listener, "news", number)
    return number


@kept
async def listener() -> int:
    return int(await channel("news", int).receive())


@kept
class Collector:
    """Ends when it has got so many signals."""

    votes: Channel[str] = Channel()

    def __init__(self) -> None:
        self.got: list[str] = []

    async def run(self, wanted: int, work: bool) -> list[str]:
        while len(self.got) < wanted:
            vote = await (self.votes.receive() | timer(30.0))
            if vote is None:
                continue
            self.got.append(vote)
            if work:
                await add_one(len(self.got))
        return self.got

    @query
    def so_far(self) -> int:
        return len(self.got)

    @update
    async def inject(self, vote: str) -> int:
        self.got.append(vote)
        await add_one(0)
        return len(self.got)


@kept
async def relay(wanted: int, got: list[str]) -> list[str]:
    """A fresh history after each signal; those that were not received move on."""
    got.append(str(await channel("votes").receive()))
    if len(got) < wanted:
        await add_one(len(got))
        continue_as_new(relay, wanted, got)
    return got


@kept
async def careful(seconds: float) -> str:
    """Cleans up when it is canceled."""
    try:
        await slow(1, seconds)
    except asyncio.CancelledError:
        await add_one(0)
        raise
    return "done"


@kept
async def fickleness(number: int) -> int:
    return await fickle(number)


@kept
async def delegation(number: int) -> int:
    return await delegating(number)


# --- workflows that are rewound ---------------------------------------------------------------------


@kept
async def repairable(service: str) -> int:
    first = await add_one(0)
    return await gated(service, first)


@kept
async def repairable_branches(service: str) -> list[int]:
    """Three branches; one fails, while the others are anywhere."""

    async def good(number: int, seconds: float) -> int:
        return await double(await slow(number, seconds))

    async def bad() -> int:
        return await gated(service, await add_one(10))

    return list(await all_of(branch(good(1, 0.3)), branch(bad()), branch(good(2, 1.5))))


@kept
async def repairable_child(service: str) -> int:
    return await add_one(await repairable(service))


@kept
async def repairable_late(service: str) -> int:
    await timer(0.3)
    return await gated(service, 1)


@kept
async def undoing_parent(service: str) -> str:
    """Makes up for the failure of one child while the other one fails, too."""
    early, late = repairable.options(id="early"), repairable_late.options(id="late")
    try:
        await all_of(early(service), late(service))
    except ChildFailed:
        return f"undone {await slow(1, 0.6)}"
    return "done"


@kept
async def changing(service: str) -> str:
    """Its code is edited between failure and resume: another task stands at the same position then."""
    first = await add_one(0)
    if Stage.version == 1:
        other = slow(100, 1.5)
        await gated(service, first)
        return f"old {await other}"
    other = slow(20, 4.0)
    await gated(service, first)
    return f"new {await other}"


@kept
async def forsaking_parent(service: str) -> int:
    """It fails, and leaves two children and a timer open."""
    patient_child.options(close_policy="cancel")()
    patient_child.options(close_policy="terminate")()
    timer(2.0 * RETENTION_SECONDS)
    return await gated(service, 0)


@kept
async def remade_child(number: int, seconds: float) -> int:
    """Takes its time to clean up when it is canceled."""
    try:
        return await slow(number, seconds)
    except asyncio.CancelledError:
        await slow(0, seconds)
        raise


@kept
async def remaking_parent(seconds: float) -> int:
    """Its child has an id of its own, which is taken as long as one that was started before is there."""
    number = await add_one(0)
    return await remade_child.options(id="remade")(number, seconds)


@kept
async def signaled_after(service: str) -> list[str]:
    """A signal comes after the point to which it goes back."""
    first = await add_one(0)
    await gated(service, first)
    return [str(await channel("votes").receive()), str(await channel("votes").receive())]


def registry() -> Registry:
    return Registry(
        [
            *(add_one, double, slow, flaky, hanging, beating, hopeless, gated, fickle, delegating),
            *(hello, fleeting, sequence, fan_out, in_order_of_arrival, branches),
            *(retries, first_of_two, naps, by_chance),
            *(
                child,
                patient_child,
                parent,
                leaving_parent,
                listener,
                Collector,
                relay,
                careful,
                fickleness,
                delegation,
            ),
            *(
                repairable,
                repairable_branches,
                repairable_child,
                repairable_late,
                undoing_parent,
                changing,
                forsaking_parent,
                remade_child,
                remaking_parent,
                signaled_after,
            ),
        ]
    )
