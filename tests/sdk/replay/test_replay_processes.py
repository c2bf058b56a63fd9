"""Fresh processes, each with a hash seed and a heap of its own, replay every shape to the same commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.sdk.replay import replay_process

ROOT = Path(__file__).resolve().parents[3]
HASH_SEEDS = range(20)
AT_ONCE = 2


def process(*arguments: str, hash_seed: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sdk.replay.replay_process", *arguments],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip


def replayed(histories: Path, hash_seed: int) -> replay_process.Told:
    done = process(str(histories), hash_seed=hash_seed)
    assert done.returncode == 0, done.stderr
    told: replay_process.Told = json.loads(done.stdout)
    return told


def test_every_shape_under_20_hash_seeds(tmp_path: Path) -> None:
    histories = tmp_path / "histories.json"
    here = replay_process.write(histories, seeds=range(2))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for told in pool.map(lambda seed: replayed(histories, seed), HASH_SEEDS):
            assert told == here


def test_with_the_stock_hash_a_fresh_process_is_refused(tmp_path: Path) -> None:
    """The control: the same check without our hash."""
    histories = tmp_path / "histories.json"
    replay_process.write(histories, seeds=range(1))
    outcomes = [process(str(histories), "stock-hash", hash_seed=seed) for seed in range(2)]
    assert any("the history has" in done.stderr for done in outcomes)
