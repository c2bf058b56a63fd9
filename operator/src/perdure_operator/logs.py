"""One JSON object per line on standard error, as the services of Perdure write it."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter


def log_json(instance: str, level: str) -> None:
    """Send all logs of this process to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            static_fields={"service": "operator", "instance": instance},
            timestamp="time",
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx2", "httpcore2", "kopf.objects"):
        logging.getLogger(chatty).setLevel("WARNING")
