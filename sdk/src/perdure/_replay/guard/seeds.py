"""Under another hash seed sets of strings iterate otherwise: a history tells under which seed it was made."""

from __future__ import annotations

import platform
from collections.abc import Iterable

_MARK = " hash "

PYTHON = f"{platform.python_version()}{_MARK}{hash('perdure') & 0xFFFF_FFFF:08x}"
"""Of this process, as its turns record it: the version, and what a string hashes to."""


def remark(recorded: Iterable[str]) -> str:
    """What to add where replay went wrong, given what the turns of the history recorded; empty: nothing."""
    ours = PYTHON.partition(_MARK)[2]
    others = {python.partition(_MARK)[2] for python in recorded} - {ours, ""}
    if not others:
        return ""
    return (
        "This history was made under another PYTHONHASHSEED, so sets of strings may iterate in another order now: "
        "run all workers under the same one, as `perdure dev` and the worker program do."
    )
