"""Sets of strings iterate otherwise under another hash seed: a history is replayed under its own alone."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable

from perdure._replay.guard.reports import log_once

_MARK = " hash "

PYTHON = f"{platform.python_version()}{_MARK}{hash('perdure') & 0xFFFF_FFFF:08x}"
"""Of this process, as its turns record it: the version, and what a string hashes to."""


STRANGE = "this history was made under another PYTHONHASHSEED"
"""How the refusal begins."""
REMEDY = "Start every worker with PYTHONHASHSEED=0 in its environment, as `perdure dev` and the worker program do"


def strange(recorded: Iterable[str]) -> str:
    """What is wrong with a history, given what its turns recorded of their process; empty: nothing."""
    ours = PYTHON.partition(_MARK)[2]
    if recorded and {python.partition(_MARK)[2] for python in recorded} - {ours, ""}:
        return (
            f"{STRANGE} than that of this worker, so sets of strings may iterate in another order now. {REMEDY}. "
            "A seed that was random does not come again: a worker with PERDURE_GUARD=warn, until the run has ended, "
            "replays the history all the same"
        )
    return ""


def warn_if_random() -> None:
    """To be called where runs may outlive this process."""
    told = "" if sys.flags.ignore_environment else os.environ.get("PYTHONHASHSEED", "")
    if sys.flags.hash_randomization and told in {"", "random"}:
        log_once(f"no other process will go on with the runs of this one: its PYTHONHASHSEED is random. {REMEDY}.")
