"""Whether the source of an app has changed since it was loaded."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from perdure import _app

POLL_SECONDS = 0.3
"""Between two looks at the files: a person does not notice, and 1,000 files cost 1 % of a core."""
CLOCK_NS = 20_000_000
"""File systems take their time stamps from a clock that lags by up to a tick of the kernel."""


class Sources:
    """Made before the app is loaded: what is written from then on counts, even if it is before the first look."""

    def __init__(self, app: str) -> None:
        """`app` as on the command line."""
        self._made_at = time.time_ns() - CLOCK_NS
        self._seen: dict[Path, int] = {}
        self._modules = 0
        if app.endswith(".py"):
            self._seen[Path(app).resolve()] = _stamp(Path(app))

    def add(self, files: Iterable[Path]) -> None:
        """Look at these too."""
        now = time.time_ns()
        for path in files:
            stamp = _stamp(path)
            fresh = self._made_at <= stamp <= now  # it may have been written after it was read
            self._seen.setdefault(path, 0 if fresh else stamp)

    def add_culprits(self, error: BaseException) -> None:
        """The files that an error at loading tells of: their modules are not there to be found."""
        names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError) and error.filename:
            names.append(error.filename)
        self.add(path for path in map(Path, names) if path.is_file())

    def changed(self) -> bool:
        """Whether any of the files is another than the one that was loaded."""
        if self._modules != len(sys.modules):  # tasks import things when they run
            self._modules = len(sys.modules)
            self.add(_app.source_files())
        return any(_stamp(path) != stamp for path, stamp in self._seen.items())

    def wait_for_change(self) -> None:
        """Blocks until `changed`."""
        while not self.changed():
            time.sleep(POLL_SECONDS)


def _stamp(path: Path) -> int:
    """When it was written last; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
