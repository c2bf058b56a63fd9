"""Corners in which Python versions could differ: cancellation amid waits, and waits for what is done already."""

from __future__ import annotations

import asyncio

from perdure import SerializationError, all_of, any_of, branch, channel, sleep, timer
from tests.sdk.replay.shaping import cleans_up, doubled, echo, mark, says, shape


async def _fails_when_canceled(n: int) -> None:
    try:
        await sleep(1000)
    except asyncio.CancelledError:
        raise ValueError(n) from None


@shape(cancel_after=3)
async def task_group_canceled_with_errors() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_fails_when_canceled(1))
            group.create_task(cleans_up(2))
            group.create_task(doubled(3))
    except* ValueError:
        await echo(4)
    await echo(5)


@shape(cancel_after=3)
async def task_group_body_canceled() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(cleans_up(2))
            await sleep(500)
    finally:
        await asyncio.shield(echo(5))


@shape(cancel_after=4)
async def task_group_fails_and_is_canceled() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(cleans_up(2))
            group.create_task(cleans_up(3))
            group.create_task(doubled(1_000))
    except* Exception:
        await echo(6)


@shape()
async def gather_of_done() -> list[int]:
    order: list[int] = []

    async def part(n: int) -> None:
        done = [echo(n), echo(n + 1)]
        await asyncio.wait(done)
        order.append(n)
        await asyncio.gather(*done)
        order.append(n + 10)
        await asyncio.sleep(0)
        order.append(n + 20)

    one = asyncio.create_task(part(1))
    two = asyncio.create_task(part(2))
    await asyncio.gather(one, two, one)
    await asyncio.gather(one)
    await mark(order)
    return order


@shape()
async def gather_canceled() -> str:
    async def waits() -> None:
        await asyncio.gather(cleans_up(1), cleans_up(2), return_exceptions=True)

    part = asyncio.create_task(waits())
    await echo(3)
    part.cancel()
    outcome = await asyncio.gather(part, return_exceptions=True)
    return repr(outcome)


@shape()
async def locks_canceled() -> list[int]:
    lock, gate, changed = asyncio.Lock(), asyncio.Semaphore(1), asyncio.Condition()
    order: list[int] = []

    async def locked(n: int) -> None:
        async with lock:
            order.append(await echo(n))

    async def gated(n: int) -> None:
        async with gate:
            order.append(await echo(n))

    async def notified(n: int) -> None:
        async with changed:
            await changed.wait()
            order.append(await echo(n))

    parts = [
        asyncio.create_task(of(10 * index + n)) for n in range(4) for index, of in enumerate((locked, gated, notified))
    ]
    await echo(99)
    async with changed:
        changed.notify(2)
    for part in (parts[2], parts[3], parts[1], parts[4]):  # one was notified, two hold what others wait for
        part.cancel()
    await echo(98)
    async with changed:
        changed.notify_all()
    await asyncio.wait(parts, timeout=10_000)
    await mark(order)
    for part in parts:
        part.cancel()
    return order


@shape()
async def queue_canceled() -> list[int]:
    items: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    order: list[int] = []

    async def take(n: int) -> None:
        order.append(await items.get() + n)

    takers = [asyncio.create_task(take(10 * n)) for n in range(3)]
    await echo(1)
    takers[0].cancel()
    items.put_nowait(1)
    takers[1].cancel()
    await echo(2)
    if items.empty():
        await items.put(2)
    await asyncio.wait(takers, timeout=5)
    return order


@shape()
async def timeout_nested() -> list[str]:
    log: list[str] = []
    try:
        async with asyncio.timeout(5):
            try:
                async with asyncio.timeout(5):
                    await cleans_up(1)
            except TimeoutError:
                log.append("inner")
            await sleep(1)
            log.append("between")
    except TimeoutError:
        log.append("outer")
    return log


@shape()
async def timeout_over_group() -> str:
    try:
        async with asyncio.timeout(0.001), asyncio.TaskGroup() as group:
            group.create_task(cleans_up(1))
            group.create_task(_fails_when_canceled(2))
    except* TimeoutError:
        await echo(3)
    except* ValueError:
        await echo(4)
    return "done"


@shape(cancel_after=2)
async def canceled_while_timing_out() -> str:
    try:
        async with asyncio.timeout(0.001):
            await cleans_up(1)
    except TimeoutError:
        await echo(2)
    return "done"


@shape()
async def uncancel() -> str:
    async def part() -> int:
        task = asyncio.current_task()
        assert task is not None
        try:
            await sleep(100)
        except asyncio.CancelledError:
            task.uncancel()
        return await echo(2)

    running = asyncio.create_task(part())
    await echo(1)
    running.cancel()
    running.cancel()
    return str(await asyncio.gather(running, return_exceptions=True))


@shape()
async def groups_of_tasks_and_deferreds() -> object:
    done, _ = await asyncio.wait([asyncio.create_task(doubled(1)), echo(2), echo(3)])
    first = await asyncio.gather(doubled(4), echo(5), echo(6))
    second = await all_of(branch(doubled(7)), echo(8), echo(9), all_of(echo(10), echo(11)))
    return [len(done), first, second]


@shape()
async def members_canceled_meanwhile() -> object:
    deferreds = [echo(n) for n in range(6)]

    async def cancels() -> None:
        await echo(100)
        deferreds[0].cancel()
        deferreds[4].cancel()

    canceler = asyncio.create_task(cancels())
    outcomes = await asyncio.gather(*deferreds[:3], return_exceptions=True)
    done, _ = await asyncio.wait(deferreds[3:])
    await canceler
    return [len(outcomes), len(done)]


@shape()
async def waits_again_and_again() -> object:
    """Groups that the engine knows from turns before, while others come and go."""
    kept = asyncio.gather(*(echo(n) for n in range(30)))
    for n in range(5):
        await all_of(echo(100 + n), echo(200 + n), timer(1))
        await any_of(kept, timer(2))
    return await kept


@shape(signals=[("numbers", 5)])
async def receipt_canceled_before_the_signal() -> object:
    numbers = channel("numbers", int)
    lost, kept = numbers.receive(), numbers.receive()
    await any_of(echo(1), lost)
    lost.cancel()
    return [lost.cancelled(), await any_of(kept, timer(5))]


@shape()
async def result_of_another_type() -> str:
    try:
        return await says(1)
    except SerializationError:
        return f"{await echo(2)}"


@shape()
async def gather_of_done_races() -> list[str]:
    """Whether it answers at once or in the next round becomes visible."""
    one = echo(1)
    await one
    order: list[str] = []

    async def gathers() -> None:
        await asyncio.gather(one)
        order.append("gathered")

    async def sleeps() -> None:
        await asyncio.sleep(0)
        order.append("slept")

    await asyncio.gather(gathers(), sleeps())
    return order
