"""The chart as Helm renders it, for each set of values in charts/perdure/ci."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.charts import CHARTS
from tests.cluster.provision import run

VALUES = sorted((CHARTS / "perdure/ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "perdure", "flows"
KUBERNETES = "1.34.4"
"""Which Helm is to believe it renders for."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    folder: Path
    tools: Path
    """Where helm, helm-unittest and kubeconform are."""

    def text(self, values: Path, *settings: str) -> str:
        given = [argument for each in settings for argument in ("--set", each)]
        return run(
            self.tools / "helm", "template", RELEASE, self.folder, "--namespace", NAMESPACE,
            "--kube-version", KUBERNETES, "--values", values, *given,
        )  # fmt: skip

    def objects(self, values: Path, *settings: str) -> list[Object]:
        return [each for each in yaml.safe_load_all(self.text(values, *settings)) if each]


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """(name, spec) of what becomes a pod."""
    for each in found:
        match each["kind"]:
            case "Pod":
                yield each["metadata"]["name"], each["spec"]
            case "Deployment" | "StatefulSet" | "Job":
                yield each["metadata"]["name"], each["spec"]["template"]["spec"]
            case _:
                pass
