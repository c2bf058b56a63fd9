"""When a failed task is tried again, and what a task raises to decide it itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure._duration import Duration, milliseconds
from perdure.errors import PerdureError
from perdure_schemas.common import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Attempt n + 1 comes `initial * factor ** (n - 1)` after attempt n failed, at most `max`, spread by `jitter`.

    `@task(retry=Retry())` means 12 attempts over some five minutes; a task without `retry` has one attempt.
    """

    attempts: int = 12
    """Attempts in total; 0 means no limit."""
    initial: Duration = 1.0
    """From the first failure to the second attempt."""
    factor: float = 2.0
    """By which each delay is longer than the one before; at least 1."""
    max: Duration = 100.0
    """No delay is longer, but for the jitter."""
    jitter: float = 0.5
    """Each delay is multiplied by a value in [1 - jitter, 1 + jitter]; 0 to 1."""
    non_retryable: Sequence[type[BaseException] | str] = ()
    """Errors (also their subclasses), or names of errors, that fail the task at once."""

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ValueError(f"attempts must be 0 (no limit) or more, not {self.attempts}")
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, not {self.jitter}")

    def policy(self) -> RetryPolicy:
        """As it travels."""
        return RetryPolicy(
            attempts_max=self.attempts,
            initial_delay_ms=milliseconds(self.initial),
            delay_factor=float(self.factor),
            delay_max_ms=milliseconds(self.max),
            jitter=float(self.jitter),
            non_retryable=[e if isinstance(e, str) else e.__name__ for e in self.non_retryable],
        )


class RetryLater(PerdureError):
    """Raised by a task: this attempt failed, and the next comes after `delay` instead of what the policy says.

    The policy's number of attempts still holds.
    """

    def __init__(self, delay: Duration, message: str = "") -> None:
        super().__init__(message or f"retry after {delay}")
        self.delay_ms = milliseconds(delay)


class NonRetryable(PerdureError):
    """Raised by a task: it failed for good, whatever attempts are left. Subclass it, or `raise ... from error`."""
