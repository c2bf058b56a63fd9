"""Values, times and failures as people read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from perdure.errors import PayloadUnreadable
from perdure.payloads import AES, key_id
from perdure_schemas.blobs import blob_of
from perdure_schemas.common import Failure, Payload

VALUE_CHARS_MAX = 60
"""Of a value in a table: enough to recognise it. JSON has it whole, for programs."""
Cut = Callable[[str], str]
"""What a value is shown as: `cut` for people, `whole` for programs."""


def value_of(payload: Payload | None) -> Any:
    """What a payload says: its JSON value, or a description where it is none."""
    if payload is None or payload.encoding == "null":
        return None
    blob = blob_of(payload)
    if blob is not None:
        return f"({blob.size} bytes, stored beside the history)"
    if payload.encoding.endswith(AES):
        return f"(encrypted, {len(payload.data)} bytes: {_key(payload)})"
    if payload.encoding != "json":
        return f"({len(payload.data)} bytes, {payload.encoding})"
    return msgspec.json.decode(payload.data)


def _key(payload: Payload) -> str:
    try:
        return f"key {key_id(payload.data)} is not here, or not this one"
    except PayloadUnreadable as error:
        return str(error)


def call(args: Payload | None, shown: Cut) -> str:
    """The arguments in parentheses, without the brackets of their array."""
    return f"({shown(text(args).removeprefix('[').removesuffix(']'))})" if args is not None else "()"


def brief(payload: Payload | None, shown: Cut) -> str:
    """A value; nothing for none."""
    return shown(text(payload)) if payload is not None and payload.encoding != "null" else ""


def text(payload: Payload | None) -> str:
    """A value as JSON."""
    return msgspec.json.encode(value_of(payload)).decode()


def cut(value: str) -> str:
    """To VALUE_CHARS_MAX."""
    return value if len(value) <= VALUE_CHARS_MAX else value[: VALUE_CHARS_MAX - 1] + "…"


def whole(value: str) -> str:
    """As it is."""
    return value


def clock(at_ms: int | None, now_ms: int | None = None) -> str:
    """Local time: with the date, to the millisecond; or, given the present, what a glance needs."""
    if at_ms is None:
        return ""
    at = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
    if now_ms is None:
        return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    today = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone().date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M")


def took(duration_ms: int) -> str:
    """In the two largest units that matter."""
    seconds = max(0, duration_ms) / 1000
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def failure_text(failure: Failure | None) -> str:
    """With its causes, one a line, as far as it does not tell them itself; without stacks."""
    lines: list[str] = []
    while failure is not None:
        line = f"{failure.name}: {failure.message}".strip().removesuffix(":")
        if not any(line in known or failure.message in known for known in lines):
            lines.append(line)
        failure = failure.cause
    return "\n  caused by ".join(lines)


def stacks(failure: Failure | None) -> str:
    """The tracebacks of a failure and its causes, the root last."""
    parts = []
    while failure is not None:
        parts.append(f"{failure.stack.rstrip()}\n{failure.name}: {failure.message}".lstrip("\n"))
        failure = failure.cause
    return "\n\ncaused by\n\n".join(parts)
