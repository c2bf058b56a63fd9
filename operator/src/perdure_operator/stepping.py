"""Carries out the steps of `scaling`."""

from __future__ import annotations

import logging
from typing import assert_never

from perdure_operator import scaling
from perdure_operator.facts import BuildPods
from perdure_operator.objects import DELETION_COST, LOWEST_COST
from perdure_operator.ports import Kubernetes, Unavailable, Workers

log = logging.getLogger("perdure.operator")


class Stepping:
    """For the Deployments of all resources."""

    def __init__(self, kubernetes: Kubernetes, workers: Workers) -> None:
        self._kubernetes = kubernetes
        self._workers = workers

    async def step(self, namespace: str, build: BuildPods, target: int, token: str) -> bool:
        """Whether there was a step to take. `token`: what workers want to be shown. Raises Changed."""
        taken = scaling.steps(build, target)
        for step in taken:
            subject = str(step.replicas) if isinstance(step, scaling.Raise | scaling.Lower) else step.pod.name
            log.info("step", extra={"action": type(step).__name__.lower(), "deployment": build.name, "to": subject})
            try:
                await self._perform(step, namespace, build, token)
            except Unavailable as error:  # of one pod: the others, and the status, do not wait for it
                log.warning("step failed", extra={"action": "step_failed", "error": str(error)})
        return bool(taken)

    async def _perform(self, step: scaling.Step, namespace: str, build: BuildPods, token: str) -> None:
        match step:
            case scaling.Raise() | scaling.Lower():
                await self._kubernetes.scale(namespace, build.name, step.replicas, build.version)
            case scaling.Drain():
                await self._workers.drain(step.pod.ip, token)
            case scaling.Resume():
                await self._workers.resume(step.pod.ip, token)
            case scaling.Cheapen():
                await self._kubernetes.annotate(namespace, step.pod.name, DELETION_COST, str(LOWEST_COST))
            case scaling.Spare():
                await self._kubernetes.annotate(namespace, step.pod.name, DELETION_COST, None)
            case _:
                assert_never(step)
