"""`python -m perdure._worker APP --socket S`: a worker for an engine on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from perdure._worker.process import Options, main, pin_hash_seed
from perdure.worker import GRACE_SECONDS, SLOTS


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m perdure._worker")
    parser.add_argument("app", help="app.py, or package.module")
    parser.add_argument("--socket", type=Path, required=True, help="of the engine")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--build", default="dev", help="what this code is called; runs pinned to it come here")
    parser.add_argument("--slots", type=int, default=SLOTS, help="attempts of tasks at a time")
    parser.add_argument(
        "--grace", dest="grace_seconds", type=float, default=GRACE_SECONDS, help="seconds for work in progress"
    )
    parser.add_argument("--ready-fd", type=int, help="where to tell that it takes work")
    parser.add_argument("--supervised", action="store_true", help="end with stdin, and for a reload on changes")
    parser.add_argument("--json-logs", action="store_true", help="log for programs, one object a line")
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    pin_hash_seed(["-m", "perdure._worker", *sys.argv[1:]])
    sys.exit(main(_options()))
