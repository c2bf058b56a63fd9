"""The queue of keys: one look at a time, again by itself, later after failures."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from perdure_operator import working
from perdure_operator.objects import Key
from perdure_operator.ports import Changed, Unavailable
from perdure_operator.working import Working

pytestmark = pytest.mark.asyncio
_PATIENCE = 10_000
KEY, OTHER = Key("Worker", "shop", "a"), Key("Worker", "shop", "b")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that were meant; they take no time."""
    found: list[float] = []

    async def rest(self: Working, wanted: asyncio.Event, pause_s: float) -> None:
        found.append(pause_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(Working, "_rest", rest)
    monkeypatch.setattr(working, "JITTER", 0.0)
    return found


async def run_until(looking: Working, done: Callable[[], bool]) -> None:
    running = asyncio.create_task(looking.run())
    try:
        for _ in range(_PATIENCE):
            if done():
                return
            await asyncio.sleep(0.001)
        pytest.fail("it did not come to that")
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_what_fails_comes_again_later_and_later(pauses: list[float]) -> None:
    looks: list[Key] = []

    async def look(key: Key) -> float | None:
        looks.append(key)
        if len(looks) < 9:
            raise Unavailable("away")
        if len(looks) < 10:
            raise ValueError("a bug")
        return 60.0 if len(looks) < 12 else None

    looking = Working(look, 1, random.Random(1))
    looking.add(KEY)
    await run_until(looking, lambda: not looking.followed())
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


async def test_a_conflict_is_no_failure(pauses: list[float]) -> None:
    async def look(key: Key) -> float | None:
        if len(pauses) < 5:
            raise Changed("by somebody")
        return None

    looking = Working(look, 1, random.Random(1))
    looking.add(KEY)
    await run_until(looking, lambda: not looking.followed())
    assert pauses == [1] * 5


async def test_an_event_during_a_look_is_followed_by_another_even_if_the_resource_was_gone() -> None:
    looks = 0

    async def look(key: Key) -> float | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            looking.add(KEY)
        return None

    looking = Working(look, 1, random.Random(1))
    looking.add(KEY)
    await run_until(looking, lambda: not looking.followed())
    assert looks == 2


async def test_an_event_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "COALESCED_S", 0.0)
    looks = 0

    async def look(key: Key) -> float | None:
        nonlocal looks
        looks += 1
        asyncio.get_running_loop().call_soon(looking.add, KEY)
        return 3_600.0

    looking = Working(look, 1, random.Random(1))
    looking.add(KEY)
    await run_until(looking, lambda: looks >= 3)


async def test_what_is_urgent_waits_behind_no_other() -> None:
    begun: list[Key] = []
    blocked = asyncio.Event()

    async def look(key: Key) -> float | None:
        begun.append(key)
        if key != KEY:
            await blocked.wait()
        return 0.01 if begun.count(key) < 2 else 3_600.0

    looking = Working(look, 1, random.Random(1))
    looking.add(OTHER)
    looking.add(Key("Worker", "shop", "c"))
    looking.add(KEY, urgent=True)
    await run_until(looking, lambda: begun.count(KEY) == 2)
    assert begun == [OTHER, KEY, KEY]


async def test_what_takes_long_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "SLOW_S", 0.01)
    looks: Counter[Key] = Counter()
    stuck_at: list[int] = []

    async def look(key: Key) -> float | None:
        looks[key] += 1
        if key == OTHER and looks[key] == 1:
            await asyncio.sleep(0.02)
        elif key == OTHER:
            stuck_at.append(looks[KEY])
            await asyncio.sleep(3_600)
        return 0.001

    looking = Working(look, 1, random.Random(1))
    looking.add(OTHER)
    looking.add(KEY)
    await run_until(looking, lambda: bool(stuck_at) and looks[KEY] > stuck_at[0] + 3)


async def test_a_key_is_looked_at_by_one_and_no_more_than_some_at_a_time() -> None:
    at_once = most = 0

    async def look(key: Key) -> float | None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        looking.add(KEY)
        await asyncio.sleep(0.001)
        at_once -= 1
        return None if most else 1.0

    looking = Working(look, 2, random.Random(1))
    for key in (KEY, OTHER, Key("Worker", "shop", "c")):
        looking.add(key)
    await run_until(looking, lambda: looking.followed() == [KEY])
    assert most == 2
