"""A workflow for each construct that workflow code may wait with: asyncio's and ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from perdure import (
    CommandFailed,
    Deferred,
    all_of,
    any_of,
    branch,
    channel,
    completed,
    inline,
    now,
    random,
    sleep,
    timer,
    uuid4,
)
from tests.sdk.replay.shaping import child, cleans_up, doubled, echo, mark, shape

# --- one after the other, and ours ---------------------------------------------------------------------


@shape()
async def sequence() -> str:
    return f"{await echo(1)}{await echo(2)}{await child(3)}"


@shape()
async def operators() -> object:
    both = await (echo(1) & echo(2) & echo(3))
    first = await (echo(4) | echo(5) | echo(6))
    mixed = await ((echo(7) & echo(8)) | echo(9))
    return [both, first, mixed]


@shape()
async def all_of_lists() -> object:
    values = await all_of([echo(n) for n in range(10)])
    return [values, await all_of([]), await all_of(branch(doubled(1)), echo(2))]


@shape()
async def all_of_with_failure() -> str:
    try:
        await all_of(echo(1), echo(1_000), echo(2))
    except CommandFailed as error:
        await echo(3)
        return str(error)
    return "no failure"


@shape()
async def any_of_and_cancel() -> object:
    losers = [echo(n) for n in range(5)]
    first = await any_of(losers)
    for loser in losers:
        loser.cancel()
    return [first, await echo(5)]


@shape()
async def completed_in_order() -> list[int]:
    values = []
    async for ended in completed([echo(n) for n in range(8)]):
        values.append(await ended)
        await echo(100 + values[-1])
    return values


@shape()
async def branches() -> list[int]:
    parts = [branch(doubled(n)) for n in range(4)]
    inner = branch(_nested_branches())
    return [*(await all_of(parts)), await inner]


async def _nested_branches() -> int:
    one, two = branch(doubled(10)), branch(doubled(20))
    return await one + await two


@shape()
async def branch_awaited_early() -> list[int]:
    part = branch(doubled(1))
    return [await part, await echo(2)]


@shape()
async def timers() -> object:
    long, short = timer(timedelta(hours=1)), timer(5)
    await any_of(long, short)
    long.cancel()
    await sleep(3)
    return now().isoformat()


@shape(signals=[("names", "a"), ("numbers", 1), ("names", "b"), ("names", "c"), ("numbers", 2)])
async def signals() -> object:
    names, numbers = channel("names", str), channel("numbers", int)
    first = await names.receive()
    total = await numbers.receive(where=lambda n: n > 1)
    second = await any_of(names.receive(), timer(3600))
    await echo(total)
    return [first, total, second, await names.receive()]


@shape()
async def values_of_the_run() -> object:
    inner = inline(lambda: echo(1).position)
    return [inner, random().random(), str(uuid4()), inline(lambda: 7), await echo(2), now().timestamp()]


@shape(cancel_after=4)
async def canceled_with_clean_up() -> None:
    try:
        await all_of([branch(doubled(n)) for n in range(4)])
    finally:
        await asyncio.shield(echo(9))


# --- asyncio -------------------------------------------------------------------------------------------


@shape()
async def gather() -> object:
    mixed = await asyncio.gather(echo(1), doubled(2), asyncio.gather(echo(3), echo(4)))
    failed = await asyncio.gather(echo(5), echo(1_000), return_exceptions=True)
    return [mixed, len(failed)]


@shape()
async def gather_fails() -> str:
    try:
        await asyncio.gather(doubled(1), echo(1_001), doubled(2))
    except CommandFailed:
        await echo(3)
    return "done"


@shape()
async def wait_first_completed() -> list[int]:
    waiting = {echo(n) for n in range(12)}
    order = []
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        order += [future.result() for future in done]
        if len(order) in (4, 8):
            await mark(d.result() if d.done() else -1 for d in waiting)
    return order


@shape()
async def wait_variants() -> object:
    tasks = [asyncio.create_task(doubled(n)) for n in range(6)]
    done, pending = await asyncio.wait(tasks, timeout=0.03)
    await mark(len(done) * 10 + len(pending) for _ in range(2))
    everything, none = await asyncio.wait(tasks)
    await mark(t.result() for t in everything)
    failing: list[asyncio.Future[int]] = [echo(20), echo(1_000), echo(21)]
    ended, open_ones = await asyncio.wait(failing, return_when=asyncio.FIRST_EXCEPTION)
    return [len(none), len(ended), len(open_ones), sum(f.exception() is not None for f in ended)]


@shape()
async def wait_in_set_order() -> None:
    """The order of a set of futures becomes visible."""
    futures: set[Deferred[int]] = {echo(n) for n in range(20)}
    await mark(int(f.position) for f in futures)
    done, _ = await asyncio.wait([asyncio.create_task(doubled(n)) for n in range(20)])
    await mark(t.result() for t in done)


@shape()
async def as_completed_coroutines() -> list[int]:
    values = []
    for following in asyncio.as_completed([doubled(n) for n in range(10)]):
        values.append(await following)
        await echo(values[-1])
    return values


@shape()
async def as_completed_deferreds() -> list[int]:
    values = []
    for following in asyncio.as_completed([echo(n) for n in range(6)], timeout=3600):
        values.append(await following)
    return values


@shape()
async def as_completed_times_out() -> str:
    values = []
    try:
        for following in asyncio.as_completed([echo(1), asyncio.sleep(50, 2), doubled(3)], timeout=20):
            values.append(await following)
    except TimeoutError:
        await mark(values)
    return f"{len(values)}"


@shape()
async def task_group() -> object:
    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(doubled(n)) for n in range(5)]
        parts.append(group.create_task(_nested_group()))
    return [part.result() for part in parts]


async def _nested_group() -> int:
    async with asyncio.TaskGroup() as group:
        one = group.create_task(doubled(50))
        two = group.create_task(doubled(60))
    return one.result() + two.result()


@shape()
async def task_group_fails() -> str:
    """The order in which a failing group cancels its tasks becomes visible."""
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(16):
                group.create_task(cleans_up(n))
            group.create_task(doubled(1_000))
    except* CommandFailed as failed:
        await echo(len(failed.exceptions))
    return "done"


@shape()
async def timeouts() -> list[str]:
    log = []
    for limit in (0.001, 10_000.0):
        try:
            async with asyncio.timeout(limit):
                await doubled(1)
                log.append("in time")
        except TimeoutError:
            log.append("late")
    async with asyncio.timeout(None) as scope:
        scope.reschedule(asyncio.get_running_loop().time() + 10_000)
        await echo(2)
    async with asyncio.timeout_at(asyncio.get_running_loop().time() + 5_000):
        await echo(3)
    return log


@shape()
async def wait_for() -> object:
    log: list[object] = [await asyncio.wait_for(doubled(1), 10_000), await asyncio.wait_for(echo(2), None)]
    for waited in (doubled(3), echo(4)):
        try:
            log.append(await asyncio.wait_for(waited, 0.001))
        except TimeoutError:
            log.append("late")
    try:
        log.append(await asyncio.wait_for(doubled(5), 0))
    except TimeoutError:
        log.append("at once")
    done = echo(6)
    await done
    log.append(await asyncio.wait_for(done, 0))
    return log


@shape(cancel_after=3)
async def wait_for_canceled() -> None:
    try:
        await asyncio.wait_for(cleans_up(1), 10_000)
    finally:
        await echo(2)


@shape()
async def queue() -> list[int]:
    items: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    taken: list[int] = []

    async def produce(first: int) -> None:
        for n in range(first, first + 3):
            await items.put(await echo(n))

    async def consume() -> None:
        while True:
            taken.append(await echo(await items.get()))
            items.task_done()

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    await asyncio.gather(produce(0), produce(10))
    await items.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    return taken


@shape()
async def priority_queue() -> list[int]:
    items: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()

    async def produce(n: int) -> None:
        items.put_nowait(await echo(n))

    parts = [asyncio.create_task(produce(n)) for n in range(5)]
    taken = [await echo(await items.get()) for _ in parts]
    await asyncio.gather(*parts)
    return taken


@shape()
async def locks() -> list[int]:
    lock, gate, flag = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event()
    order: list[int] = []

    async def part(n: int) -> None:
        await flag.wait()
        async with gate:
            await echo(n)
            async with lock:
                order.append(await echo(10 + n))

    parts = [asyncio.create_task(part(n)) for n in range(6)]
    await echo(99)
    flag.set()
    await asyncio.gather(*parts)
    return order


@shape()
async def condition() -> list[int]:
    changed = asyncio.Condition()
    ready: list[int] = []
    order: list[int] = []

    async def waits(n: int) -> None:
        async with changed:
            await changed.wait_for(lambda: len(ready) > n)
        order.append(await echo(10 + n))

    parts = [asyncio.create_task(waits(n)) for n in range(4)]
    for n in range(4):
        ready.append(await echo(n))
        async with changed:
            changed.notify_all()
    await asyncio.gather(*parts)
    return order


@shape()
async def barrier() -> list[int]:
    meeting = asyncio.Barrier(3)
    order: list[int] = []

    async def part(n: int) -> None:
        await echo(n)
        async with meeting:
            order.append(await echo(10 + n))

    await asyncio.gather(*(part(n) for n in range(3)))
    return order


@shape()
async def event_set_by_callback() -> int:
    flag = asyncio.Event()
    deferred = echo(1)
    deferred.add_done_callback(lambda _: flag.set())
    await flag.wait()
    return deferred.result()


@shape()
async def commands_in_callbacks() -> int:
    inner: list[Deferred[int]] = []

    def go_on(ended: asyncio.Future[int]) -> None:
        inner.append(echo(10 + ended.result()))

    for n in range(3):
        echo(n).add_done_callback(go_on)
    while len(inner) < 3:
        await sleep(1)
    return sum(await all_of(inner))


@shape()
async def shield() -> object:
    inner = asyncio.create_task(doubled(1))
    try:
        async with asyncio.timeout(0.001):
            await asyncio.shield(inner)
    except TimeoutError:
        await echo(2)
    return await inner


@shape()
async def sleeps() -> float:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    await asyncio.gather(*(asyncio.sleep(n / 10) for n in range(5)))
    handle = loop.call_later(1000, list)
    handle.cancel()
    return loop.time()


@shape()
async def generators() -> list[int]:
    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(5):
                yield await echo(n)
        finally:
            await echo(77)

    @asynccontextmanager
    async def scope() -> AsyncIterator[int]:
        yield await echo(88)
        await echo(89)

    values = [n async for n in numbers()]
    async with scope() as value:
        values.append(value)
    async for n in numbers():
        if n == 2:
            break
    return values


@shape()
async def canceled_branches() -> str:
    parts = [asyncio.create_task(cleans_up(n)) for n in range(4)]
    await echo(50)
    parts[2].cancel()
    await asyncio.wait(parts, timeout=1)
    for part in {parts[3], parts[0], parts[1]}:
        part.cancel()
    results = await asyncio.gather(*parts, return_exceptions=True)
    return f"{len(results)}"


@shape()
async def names() -> list[str]:
    async def name() -> str:
        current = asyncio.current_task()
        assert current is not None
        await echo(1)
        return current.get_name()

    return [await name(), *await asyncio.gather(name(), name())]
