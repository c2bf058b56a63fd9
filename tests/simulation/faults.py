"""What may go wrong, how often, and the one source of chance that decides it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulation.virtual import VirtualLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Probabilities per step (before and after every call of a port), or per call where it says so."""

    until: float = 8.0
    """None after so many virtual seconds, so that every run can end."""
    target: str = ""
    """Crashes and pauses strike services whose name begins so."""
    crash: float = 0.003
    pause: float = 0.003
    pause_max: float = 4.0
    session_lost: float = 0.7
    """Of those who pause: the broker takes them for dead. Awake again, they are zombies."""
    latency: float = 0.3
    latency_max: float = 0.02
    publish_error: float = 0.02
    """Per message: not confirmed; stored or not."""
    duplicate: float = 0.03
    """Per message."""
    delay: float = 0.10
    """Per message: delivered later than others sent after it."""
    delay_max: float = 3.5
    lost_ack: float = 0.05
    unknown_commit: float = 0.05
    """Per conditional write: applied, not applied, or applied at the next serial operation on the row."""
    outage: float = 0.01
    """Per call of a store: it refuses to work."""
    clock_jump: float = 0.002
    clock_jump_max_ms: int = 5_000
    any_replica: float = 0.5
    """Share of schedules in which the broker sends messages of one key to any replica."""
    crash_at: int | None = None
    """Kill whoever makes the n-th step, once: to try every crash point in turn."""
    sleep_at: int | None = None
    """Let whoever makes the n-th step sleep and lose its sessions, once: a zombie at every point in turn."""


NO_FAULTS = Faults(until=0.0, latency=0.0, any_replica=0.0)


EVERYTHING = Faults()
PROFILES = (
    *(EVERYTHING,) * 8,
    Faults(target="worker", crash=0.03, pause=0.02, until=12.0),
    Faults(target="task-engine", crash=0.03, pause=0.03, unknown_commit=0.15, until=12.0),
    Faults(target="workflow-engine", crash=0.02, pause=0.02, unknown_commit=0.15, until=12.0),
    Faults(target="timers", crash=0.1, pause=0.1, clock_jump=0.05, until=15.0),
    Faults(duplicate=0.15, delay=0.3, lost_ack=0.2, publish_error=0.1, until=12.0),
    Faults(pause=0.02, session_lost=1.0, crash=0.0, any_replica=0.0, until=15.0),
    Faults(outage=0.1, unknown_commit=0.3),
    Faults(clock_jump=0.05, clock_jump_max_ms=30_000),
)
"""Half of the schedules have a little of everything; the others aim at one kind of service, or one kind of fault."""


def profile(seed: int) -> Faults:
    """What goes wrong in the schedule of a seed."""
    return random.Random(f"faults {seed}").choice(PROFILES)


class Dice:
    """Chance, drawn from a seed: with the seed and the code, a schedule repeats exactly."""

    def __init__(self, seed: int | str, faults: Faults, loop: VirtualLoop) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self._loop = loop

    def strikes(self, probability: float) -> bool:
        """A fault of this probability strikes now."""
        return self._loop.time() < self.faults.until and self.rng.random() < probability

    def latency(self) -> float | None:
        """How long a call takes; `None`: it does not even yield."""
        if self.rng.random() >= self.faults.latency:
            return None
        return self.rng.uniform(0.0, self.faults.latency_max)
