"""Live instances within their bytes."""

from __future__ import annotations

from typing import cast

import pytest

from perdure._replay.instance import Instance
from perdure._worker.live import CANDIDATES_MAX, LiveInstances


class Fake:
    def __init__(self, size_bytes: int, within_try: bool) -> None:
        self.size_bytes = size_bytes
        self.eviction_runs_user_code = within_try
        self.evicted = 0

    def evict(self) -> None:
        self.evicted += 1


def put(live: LiveInstances, key: str, size: int, *, within_try: bool = False) -> Fake:
    fake = Fake(size, within_try)
    live.put(key, "r", cast(Instance, fake))
    return fake


def test_the_least_recently_used_goes_first() -> None:
    live = LiveInstances(100)
    a, b = put(live, "a", 40), put(live, "b", 40)
    assert live.get("a", "r") is cast(Instance, a)
    put(live, "c", 40)
    assert (a.evicted, b.evicted) == (0, 1)
    assert live.get("b", "r") is None


def test_rather_one_whose_closing_runs_no_code_of_the_user_than_the_very_last() -> None:
    live = LiveInstances(100)
    tried, plain, recent = (put(live, key, 30, within_try=key == "tried") for key in ("tried", "plain", "recent"))
    put(live, "new", 30)
    assert (tried.evicted, plain.evicted, recent.evicted) == (0, 1, 0)


@pytest.mark.parametrize("others", [1, CANDIDATES_MAX, CANDIDATES_MAX + 5])
def test_where_all_that_were_not_used_for_long_would_run_some_the_very_last_goes(others: int) -> None:
    live = LiveInstances(100 + others)
    tried = [put(live, str(number), 1, within_try=True) for number in range(others)]
    used, new = put(live, "used", 90), Fake(11, within_try=False)
    live.put("new", "r", cast(Instance, new))
    assert sum(fake.evicted for fake in tried) == (others >= CANDIDATES_MAX)
    assert tried[0].evicted == (others >= CANDIDATES_MAX)
    assert used.evicted == (others < CANDIDATES_MAX)
    assert not new.evicted


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
