"""The charts of this repository, as Helm wants them: it writes what a chart depends on into the chart's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster import images
from tests.cluster.provision import run

CHARTS = images.ROOT / "charts"


def packed(helm: Path, folder: Path) -> Path:
    """A copy of the chart `perdure`, with what it depends on."""
    shutil.copytree(CHARTS, folder / "charts", ignore=shutil.ignore_patterns("*.tgz", "*.lock"))
    run(helm, "dependency", "update", "--skip-refresh", folder / "charts/perdure")
    return folder / "charts/perdure"
