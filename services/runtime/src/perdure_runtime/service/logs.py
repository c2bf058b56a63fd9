"""One JSON object per line on standard error: what log collectors of clusters take without being taught."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from typing import Any, TypeAlias

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIELD_MAX = 4_000
"""Characters of one field: a traceback's end says what happened, a payload has no place in a log."""


REPEAT_S = 10.0
"""An outage fails each of many messages twice a second; so often a line about it says that it lasts."""
_OUTAGES = frozenset(
    {
        "broker_away",
        "commit_outage",
        "commit_unknown",
        "messages_delayed",
        "publish_retried",
        "receive_retried",
        "round_outage",
        "step_delayed",
    }
)
"""Actions whose lines tell of servers, not of what was to be done there."""
_Kind: TypeAlias = tuple[str, str, str]
"""Logger, sentence, and the first word of the error."""


class Repetitions(logging.Filter):
    """Of lines about an outage, and of those of Cassandra's driver, lets one of a kind pass in REPEAT_S seconds.

    It tells as `repeated` how many of its kind were left out before it. Of one kind are lines whose errors begin with
    the same word, which names the server. The driver's come without tracebacks, which end within its own code: what is
    wrong stands in the error. A traceback of our own code is no outage's, whatever the line says.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[_Kind, float] = {}
        self._left_out: Counter[_Kind] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        driver = record.name.startswith("cassandra")
        if not driver and (getattr(record, "action", "") not in _OUTAGES or record.exc_info):
            return True
        kind = (record.name, str(record.msg), str(getattr(record, "error", "")).partition(" ")[0])
        if 0 <= record.created - self._passed.get(kind, -REPEAT_S) < REPEAT_S:  # a clock may be set back
            self._left_out[kind] += 1
            return False
        self._passed[kind] = record.created
        record.repeated = self._left_out.pop(kind, 0)
        if driver and record.exc_info:
            record.error, record.exc_info = str(record.exc_info[1]), None
        return True


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
    handler.addFilter(Repetitions())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("cassandra").setLevel("WARNING")
