"""What a worker process and its supervisor tell each other."""

from __future__ import annotations

import msgspec

EXIT_RELOAD = 75
"""A worker's exit code for "my source changed: start me again"."""


class Ready(msgspec.Struct, frozen=True):
    """What a worker tells its supervisor once it takes work."""

    workflows: list[str]
    tasks: list[str]
