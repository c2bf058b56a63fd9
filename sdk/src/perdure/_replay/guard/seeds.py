"""Sets of strings iterate otherwise under another hash seed: a history is replayed under its own alone."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable

from perdure._replay.guard.reports import Mode, log_once
from perdure.errors import PerdureError

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


LOST = "this process has a random PYTHONHASHSEED, and no other process can go on with its runs when it ends"


def is_random() -> bool:
    """Whether the next process has another seed than this one."""
    told = "" if sys.flags.ignore_environment else os.environ.get("PYTHONHASHSEED", "")
    return bool(sys.flags.hash_randomization) and told in {"", "random"}


def warn_if_random() -> None:
    """To be called where runs may outlive this process."""
    if is_random():
        log_once(f"{LOST}. {REMEDY}.")


def refuse_if_random(mode: Mode) -> None:
    """To be called where runs are meant to outlive this process.

    Args:
        mode: of the guard; all but "error" warn only, and replay such runs all the same.

    Raises:
        PerdureError: the seed is random.
    """
    if mode == "error" and is_random():
        raise PerdureError(
            f"{LOST}. Start it with PYTHONHASHSEED=0 in its environment; where no run has to go on after it, with "
            "PERDURE_GUARD=warn"
        )
    warn_if_random()
