"""When a failed attempt is tried again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_core.retry import DELAY_LIMIT_MS, delay_ms, fraction, next_delay_ms
from perdure_schemas.common import Failure, RetryPolicy

EXACT = RetryPolicy(attempts_max=0, initial_delay_ms=100, delay_factor=3.0, delay_max_ms=2_000, jitter=0.0)


def test_delays_grow_by_the_factor_up_to_the_limit() -> None:
    assert [delay_ms(EXACT, attempt, "a") for attempt in range(1, 6)] == [100, 300, 900, 2_000, 2_000]


@pytest.mark.parametrize(("attempts_max", "delays"), [(1, [None]), (2, [100, None]), (3, [100, 300, None])])
def test_attempts_max_counts_attempts_in_total(attempts_max: int, delays: list[int | None]) -> None:
    policy = RetryPolicy(attempts_max=attempts_max, initial_delay_ms=100, delay_factor=3.0, jitter=0.0)
    assert [delay_ms(policy, attempt, "a") for attempt in range(1, attempts_max + 1)] == delays


def test_jitter_spreads_evenly_around_the_delay_and_repeats_exactly() -> None:
    policy = RetryPolicy(attempts_max=0, initial_delay_ms=1_000, jitter=0.5)
    delays = [delay_ms(policy, 1, f"attempt {number}") for number in range(1_000)]
    assert delays == [delay_ms(policy, 1, f"attempt {number}") for number in range(1_000)]
    known = [delay for delay in delays if delay is not None]
    assert min(known) >= 500
    assert max(known) <= 1_500
    assert min(known) < 550
    assert max(known) > 1_450
    assert sum(known) / 1_000 == pytest.approx(1_000, rel=0.05)


def test_a_failure_may_say_that_it_is_final_or_when_to_try_again() -> None:
    def after(attempt: int = 1, **says: object) -> int | None:
        failure = Failure(name="ValueError", message="no", **says)  # type: ignore[arg-type]
        return next_delay_ms(policy, failure, attempt=attempt, attempt_id="a")

    policy = RetryPolicy(attempts_max=2, initial_delay_ms=100, jitter=0.0, non_retryable=["LookupError"])
    assert after() == 100
    assert after(retryable=False) is None
    assert after(next_delay_ms=7) == 7
    assert after(next_delay_ms=-7) == 0
    assert after(2, next_delay_ms=7) is None, "no wish makes up for an attempt that is not left"
    named = Failure(name="LookupError", message="no")
    assert next_delay_ms(policy, named, attempt=1, attempt_id="a") is None


NUMBERS = st.integers(-(10**12), 10**12)
FACTORS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 2.0, 1e308])


@given(
    st.builds(
        RetryPolicy,
        attempts_max=st.integers(-3, 1_000),
        initial_delay_ms=NUMBERS,
        delay_factor=FACTORS,
        delay_max_ms=NUMBERS,
        jitter=FACTORS,
    ),
    st.integers(-5, 10_000),
    NUMBERS | st.none(),
)
def test_whatever_a_policy_says_the_delay_is_none_or_in_range(
    policy: RetryPolicy, attempt: int, wish: int | None
) -> None:
    failure = Failure(name="E", message="", next_delay_ms=wish)
    for delay in (
        delay_ms(policy, attempt, "a"),
        next_delay_ms(policy, failure, attempt=attempt, attempt_id="a"),
    ):
        assert delay is None or 0 <= delay <= DELAY_LIMIT_MS


@given(st.text())
def test_fractions_are_in_range(identity: str) -> None:
    assert 0.0 <= fraction(identity) < 1.0
    assert not math.isnan(fraction(identity))
