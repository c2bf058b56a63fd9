"""Cursors of lists, as read models with numbered rows write them: `started_at.number` of the last row of a page."""

from __future__ import annotations

import re

from perdure_runtime.errors import InvalidCursor

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})", re.ASCII)
"""As many digits as fit into 64 bits, whatever they are."""


def write(started_at: int, number: int) -> str:
    return f"{started_at}.{number}"


def read(cursor: str) -> tuple[int, int]:
    """Raises InvalidCursor: it is none of ours."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise invalid(cursor)
    return int(found[1]), int(found[2])


def invalid(cursor: str) -> InvalidCursor:
    return InvalidCursor(f"{cursor!r:.80} is the cursor of no page")
