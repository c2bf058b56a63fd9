"""The task engine of one namespace, until SIGTERM. Any number of replicas may run."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from perdure_runtime.ports import Ports
from perdure_runtime.service.life import run_service
from perdure_runtime.service.settings import ServiceSettings
from perdure_runtime.task_driver import TaskEngine


def engines(ports: Ports, settings: ServiceSettings) -> Sequence[Coroutine[Any, Any, None]]:
    """What this service runs."""
    return [TaskEngine(ports, settings.namespace, settings.instance).run()]


def main() -> None:
    """Entry point."""
    run_service("task-engine", engines, ServiceSettings)


if __name__ == "__main__":
    main()
