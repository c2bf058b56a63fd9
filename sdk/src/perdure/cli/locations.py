"""Where a development engine lives: its database, the socket that stands for it, and what its worker declares."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextvars import ContextVar
from pathlib import Path

DATABASE = Path(".perdure/dev.sqlite")
URL = "PERDURE_URL"
"""Of an API: commands then ask it instead of a `perdure dev`, but for those with --db."""
TOKEN = "PERDURE_TOKEN"
"""What that API asks callers to show."""
SOCKET_PATH_BYTES_MAX = 100
"""Unix sockets cannot have longer paths (108 bytes on Linux, 104 on macOS, the closing zero included)."""


_DATABASE_GIVEN: ContextVar[bool] = ContextVar("database given", default=False)


def database_given(given: bool) -> None:
    """Whether this command has an option that names a database. It was typed for this command; the environment not."""
    _DATABASE_GIVEN.set(given)


def api_url() -> str:
    """Empty: commands speak to a `perdure dev` through its socket."""
    return "" if _DATABASE_GIVEN.get() else os.environ.get(URL, "")


def socket_path(database: Path) -> Path:
    """Beside the database, under its whole name: `x.db` and `x.sqlite` are two engines.

    Where that path is too long for a socket, in the temporary folder, named by its hash.
    """
    beside = _beside(database, ".sock")
    if len(str(beside).encode()) <= SOCKET_PATH_BYTES_MAX:
        return beside
    name = hashlib.blake2b(str(beside).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"perdure-{name}.sock"


def declared_path(database: Path) -> Path:
    """Beside the database, while a `perdure dev` runs on it."""
    return _beside(database, ".app.json")


def _beside(database: Path, ending: str) -> Path:
    resolved = database.resolve()
    return resolved.with_name(resolved.name + ending)
