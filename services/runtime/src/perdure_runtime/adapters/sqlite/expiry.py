"""Removes what has expired. Expired rows are invisible at once; the file is rid of them a little later."""

from __future__ import annotations

from perdure_runtime.adapters.sqlite.database import Database

_SWEEP_INTERVAL_MS = 60_000
_SWEEP_ROWS = 500
"""Per table and sweep: about a millisecond of work."""
_EXPIRED = "SELECT number FROM {} WHERE expires_at <= ? LIMIT ?"


class Expiry:
    """Now and then part of a transaction that is written anyway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sweep_at = database.clock.now() + _SWEEP_INTERVAL_MS
        database.riders.append(self)

    def before_commit(self) -> None:
        database, now = self._database, self._database.clock.now()
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_INTERVAL_MS
        for (number,) in database.read(_EXPIRED.format("heads"), (now, _SWEEP_ROWS)):
            forget_head(database, number)
        for table in ("tombstones", "tasks", "forgotten_runs"):
            database.write(f"DELETE FROM {table} WHERE number IN ({_EXPIRED.format(table)})", (now, _SWEEP_ROWS))

    def committed(self) -> None:
        """Nothing is kept in memory."""

    def rolled_back(self) -> None:
        """The next sweep finds them again."""


def forget_head(database: Database, number: int) -> None:
    """Delete a head with all its runs."""
    for table in ("events", "marks"):
        database.write(f"DELETE FROM {table} WHERE run IN (SELECT run FROM runs WHERE head = ?)", (number,))
    for statement in ("causes WHERE head", "runs WHERE head", "heads WHERE number"):
        database.write(f"DELETE FROM {statement} = ?", (number,))
