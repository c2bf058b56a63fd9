"""The benches of the embedded engine run: nobody sees otherwise that they have come to need what is no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.repo import tree

_BEGIN = """
import asyncio, sys
from pathlib import Path
import embedded, scale
folder = Path(sys.argv[1])
print(asyncio.run(embedded.measure_cold_start(folder)) > 0, asyncio.run(scale.measure(folder, ["signals"])))
"""


def test_an_engine_is_started_and_measured(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(tree.ROOT / "bench")}
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout
