"""Live instances within their bytes."""

from __future__ import annotations

from typing import cast

from perdure._replay.instance import Instance
from perdure._worker.live import LiveInstances


class Fake:
    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.evicted = 0

    def evict(self) -> None:
        self.evicted += 1


def put(live: LiveInstances, key: str, size: int) -> Fake:
    fake = Fake(size)
    live.put(key, "r", cast(Instance, fake))
    return fake


def test_the_least_recently_used_goes_first() -> None:
    live = LiveInstances(100)
    a, b = put(live, "a", 40), put(live, "b", 40)
    assert live.get("a", "r") is cast(Instance, a)
    put(live, "c", 40)
    assert (a.evicted, b.evicted) == (0, 1)
    assert live.get("b", "r") is None


def test_growth_is_accounted_for() -> None:
    live = LiveInstances(100)
    a, b = put(live, "a", 40), put(live, "b", 40)
    b.size_bytes = 90
    live.put("b", "r", cast(Instance, b))
    assert (a.evicted, b.evicted) == (1, 0)


def test_what_does_not_grow_is_counted_once() -> None:
    live = LiveInstances(100)
    a, b = put(live, "a", 40), put(live, "b", 40)
    for _ in range(3):
        live.put("b", "r", cast(Instance, b))
    assert (a.evicted, b.evicted) == (0, 0)


def test_one_that_is_replaced_or_too_large_alone() -> None:
    live = LiveInstances(100)
    a = put(live, "a", 200)
    assert a.evicted == 0  # its turn is not over: it is the only one, and stays
    other = put(live, "a", 10)
    assert (a.evicted, other.evicted) == (1, 0)
    live.clear()
    assert other.evicted == 1
    assert live.get("a", "r") is None
