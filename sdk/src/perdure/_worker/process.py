"""A worker as a process of its own, as containers start it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from perdure.worker import Worker

HASH_SEED = "0"
"""Sets of strings then iterate alike in every worker process, and so in every replay."""


def pin_hash_seed(arguments: Sequence[str]) -> None:
    """Start this program again under HASH_SEED, with `arguments` after `python`, unless it runs under it already."""
    if sys.flags.hash_randomization:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, *arguments])


async def run_until_signal(worker: Worker) -> None:
    """Run it; SIGTERM and SIGINT drain it."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.drain)
    try:
        await worker.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
