"""How the processes of this machine log: for people, with the facts that records carry, or as JSON for programs."""

from __future__ import annotations

import logging
import os

from perdure_runtime.service.logs import JsonFormatter, log_json

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ELSEWHERE = frozenset({"action", "stack", "file", "line", "function"})
"""Facts that the message tells already, or that are too long for it."""


class Facts(logging.Formatter):
    """Appends what a record was given by `extra` as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        known = vars(record).items()
        facts = [f"{name}={value}" for name, value in known if name not in _STANDARD and name not in _ELSEWHERE]
        head, line, rest = text.partition("\n")
        return " ".join([head, *facts]) + line + rest


def log_early(process: str) -> None:
    """As JSON also what is logged before `log_to_stderr`, since the app may set up logging itself; and all warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(process, str(os.getpid())))
    logging.lastResort = handler
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.addHandler(handler)
    warnings.propagate = False


def log_to_stderr(process: str, *, json: bool, level: str = "INFO") -> None:
    """Unless the app has set up logging itself. With `json` one object a line, as the services of a cluster write."""
    root = logging.getLogger()
    if root.handlers:
        return
    if json:
        log_json(process, str(os.getpid()), level)
        return
    handler = logging.StreamHandler()
    handler.setFormatter(Facts("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    root.setLevel(level)
