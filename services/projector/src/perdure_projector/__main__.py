"""The projector of one namespace, until SIGTERM. Any number of replicas may run."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from perdure_runtime.ports import Ports
from perdure_runtime.projector import Projector
from perdure_runtime.service.life import run_service
from perdure_runtime.service.settings import ServiceSettings

PAUSE_SECONDS = 1.0
"""A list may be so late while much changes. A run of some tasks is written once or twice then, not four times; and at a
hundred runs a second ten of a shard share the conditional batch that counts them."""


def engines(ports: Ports, settings: ServiceSettings) -> Sequence[Coroutine[Any, Any, None]]:
    """What this service runs."""
    return [Projector(ports, settings.namespace, pause_seconds=PAUSE_SECONDS).run()]


def main() -> None:
    """Entry point."""
    run_service("projector", engines, ServiceSettings)


if __name__ == "__main__":
    main()
