"""`python -m perdure._worker --socket S --app APP`: a worker for an engine on this machine."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from perdure._worker.process import pin_hash_seed, run_until_signal
from perdure.cli import apps
from perdure.worker import GRACE_SECONDS, SLOTS, Worker
from perdure_runtime.adapters.socket import connect


async def _run(options: argparse.Namespace) -> None:
    module = apps.load(options.app)
    engine = await connect(options.socket)
    try:
        worker = Worker(
            engine.broker,
            [module],
            namespace=options.namespace,
            build=options.build,
            slots=options.slots,
            grace_seconds=options.grace,
        )
        await run_until_signal(worker)
    finally:
        await engine.close()


def main() -> None:
    """Entry point."""
    pin_hash_seed(["-m", "perdure._worker", *sys.argv[1:]])
    parser = argparse.ArgumentParser(prog="python -m perdure._worker")
    parser.add_argument("--socket", type=Path, required=True, help="of the engine")
    parser.add_argument("--app", required=True, help="app.py, or package.module")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--build", default="dev", help="what this code is called; runs pinned to it come here")
    parser.add_argument("--slots", type=int, default=SLOTS, help="attempts of tasks at a time")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds for work in progress at the end")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
