"""What a worker process and its supervisor tell each other."""

from __future__ import annotations

import msgspec

EXIT_RELOAD = 75
"""A worker's exit code for "my source changed: start me again"."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """What a worker tells its supervisor once it takes work."""

    workflows: list[str]
    tasks: list[str]
    left_out: dict[str, str] = {}
    """Workflows that the guard refuses, and why; the others are served."""


class Broken(msgspec.Struct, frozen=True, tag=True):
    """What it tells instead when the app cannot be loaded: it waits for a change of the source."""

    reason: str
