"""Shared by the tests of charts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.charts.rendered import Chart
from tests.cluster.charts import packed


@pytest.fixture(scope="session")
def chart(chart_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return Chart(packed(chart_tools / "helm", tmp_path_factory.mktemp("charts")), chart_tools)
