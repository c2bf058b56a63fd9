"""Where a development engine lives: its database, the socket that stands for it, and what its worker declares."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

DATABASE = Path(".perdure/dev.sqlite")
SOCKET_PATH_BYTES_MAX = 100
"""Unix sockets cannot have longer paths (108 bytes on Linux, 104 on macOS, the closing zero included)."""


def socket_path(database: Path) -> Path:
    """Beside the database; where that path is too long for a socket, in the temporary folder, named by its hash."""
    beside = database.resolve().with_suffix(".sock")
    if len(str(beside).encode()) <= SOCKET_PATH_BYTES_MAX:
        return beside
    name = hashlib.blake2b(str(beside).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"perdure-{name}.sock"


def declared_path(database: Path) -> Path:
    """Beside the database, while a `perdure dev` runs on it."""
    return database.resolve().with_suffix(".app.json")
