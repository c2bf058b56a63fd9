"""When a failed attempt is tried again: arithmetic only, the jitter derived from the attempt's id."""

from __future__ import annotations

from hashlib import blake2b

from perdure_schemas.common import Failure, RetryPolicy

DELAY_LIMIT_MS = 366 * 24 * 3_600_000
"""No policy waits longer than a year: it keeps due times in any store's range, whatever a policy says."""
_FRACTION_BITS = 53
"""A double holds so many bits of a fraction exactly."""


def fraction(identity: str) -> float:
    """A number in [0, 1), evenly spread over identities and a function of `identity` alone."""
    digest = blake2b(identity.encode(), digest_size=8, person=b"jitter").digest()
    return (int.from_bytes(digest, "big") >> (64 - _FRACTION_BITS)) / (1 << _FRACTION_BITS)


def delay_ms(policy: RetryPolicy, attempt: int, attempt_id: str) -> int | None:
    """Milliseconds between the failure of `attempt` (from 1) and the next one; `None`: there is no next one."""
    if 0 < policy.attempts_max <= attempt:
        return None
    jitter = min(max(policy.jitter, 0.0), 1.0)
    spread = 1.0 + jitter * (2.0 * fraction(attempt_id) - 1.0)
    return _bounded(_backed_off(policy, max(attempt, 1)) * spread, DELAY_LIMIT_MS)


def next_delay_ms(policy: RetryPolicy, failure: Failure, *, attempt: int, attempt_id: str) -> int | None:
    """As `delay_ms`, heeding what the failure itself says: that it is final, or when to try again."""
    if not failure.retryable or failure.name in policy.non_retryable:
        return None
    delay = delay_ms(policy, attempt, attempt_id)
    if delay is None or failure.next_delay_ms is None:
        return delay
    return _bounded(failure.next_delay_ms, DELAY_LIMIT_MS)


def _backed_off(policy: RetryPolicy, attempt: int) -> int:
    """initial * factor ** (attempt - 1), within 0 … delay_max, without jitter."""
    if policy.initial_delay_ms <= 0:
        return 0
    try:
        delay = policy.initial_delay_ms * max(policy.delay_factor, 0.0) ** (attempt - 1)
    except OverflowError:
        return _bounded(policy.delay_max_ms, DELAY_LIMIT_MS)
    return _bounded(delay, _bounded(policy.delay_max_ms, DELAY_LIMIT_MS))


def _bounded(delay: float, most: int) -> int:
    """`delay` as a whole number in 0 … most; what is no number at all counts as the most."""
    return int(delay) if 0.0 <= delay <= most else (0 if delay < 0 else most)
