"""The timer service of one namespace, until SIGTERM. Any number of replicas may run."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from perdure_runtime.ports import Ports
from perdure_runtime.service.life import run_service
from perdure_runtime.service.settings import ServiceSettings
from perdure_runtime.timer_driver import TimerService

PAUSE_SECONDS = 0.1
"""Most timers of a busy cluster are those of runs' retention: at a hundred a second ten are stored together then."""


def engines(ports: Ports, settings: ServiceSettings) -> Sequence[Coroutine[Any, Any, None]]:
    """What this service runs."""
    return [TimerService(ports, settings.namespace, pause_seconds=PAUSE_SECONDS).run()]


def main() -> None:
    """Entry point."""
    run_service("timer", engines, ServiceSettings)


if __name__ == "__main__":
    main()
