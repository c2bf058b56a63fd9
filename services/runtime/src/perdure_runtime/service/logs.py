"""One JSON object per line on standard error: what log collectors of clusters take without being taught."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIELD_MAX = 4_000
"""Characters of one field: a traceback's end says what happened, a payload has no place in a log."""


class JsonFormatter(logging.Formatter):
    """Time, level, logger, sentence, and what the call gave as `extra` (run_id, task_id, action, …)."""

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._fixed = {"service": service, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[-_FIELD_MAX:],
            **self._fixed,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = (
                    value if isinstance(value, int | float | bool) or value is None else str(value)[-_FIELD_MAX:]
                )
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_FIELD_MAX:]
        return json.dumps(line, ensure_ascii=False)

    @staticmethod
    def converter(seconds: float | None) -> Any:
        import time

        return time.gmtime(seconds)


def log_json(service: str, instance: str, level: str) -> None:
    """Send all logs of this process to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, instance))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("cassandra").setLevel("WARNING")
