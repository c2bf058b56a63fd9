"""What programs connect to: URLs, or files of a `perdure dev`."""

from __future__ import annotations

import re
from pathlib import Path

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://", re.ASCII)


def scheme_of(target: str | Path) -> str:
    """In lower case; empty: it is a path."""
    found = _URL.match(target) if isinstance(target, str) else None
    return "" if found is None else found[1].lower()
