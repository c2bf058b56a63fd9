"""What an outage leaves in the log: enough to see that it lasts, and no more."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from perdure_runtime.service.logs import REPEAT_S, JsonFormatter, Repetitions


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter("timer", "timer-0"))
        self.addFilter(Repetitions())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def kept() -> _Kept:
    return _Kept()


def say(kept: _Kept, name: str, message: str, at: float, **extra: Any) -> None:
    record = logging.makeLogRecord(
        {"name": name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": message, "created": at, **extra}
    )
    kept.handle(record)


def test_an_outage_is_told_once_in_a_while_with_what_was_left_out(kept: _Kept) -> None:
    for number in range(41):
        say(kept, "perdure.runtime", "delayed", 100.0 + number * REPEAT_S / 20, action="messages_delayed")
    assert [line["repeated"] for line in kept.lines] == [0, 19, 19]


def test_what_is_no_outage_is_told_each_time(kept: _Kept) -> None:
    for number in range(3):
        say(kept, "perdure.runtime", "message failed", 100.0 + number, action="message_failed")
    assert len(kept.lines) == 3
    assert "repeated" not in kept.lines[0]


def test_the_driver_of_cassandra_tells_its_error_and_not_its_insides(kept: _Kept) -> None:
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except ConnectionRefusedError as error:
        told = (type(error), error, error.__traceback__)
    say(kept, "cassandra.cluster", "cannot connect", 100.0, exc_info=told)
    (line,) = kept.lines
    assert line["error"] == "[Errno 111] Connection refused"
    assert "exception" not in line


def test_an_outage_of_one_server_does_not_hide_that_of_another(kept: _Kept) -> None:
    for number, server in enumerate(("Cassandra", "Pulsar", "Cassandra", "Pulsar")):
        error = f"{server} at 10.0.0.1 cannot be reached"
        say(kept, "perdure.runtime", "delayed", 100.0 + number, action="messages_delayed", error=error)
    assert [line["error"].split()[0] for line in kept.lines] == ["Cassandra", "Pulsar"]


def test_an_outage_hides_no_traceback_of_our_own_code(kept: _Kept) -> None:
    say(kept, "perdure.runtime", "delayed", 100.0, action="messages_delayed")
    error = TypeError("a defect")
    told = (TypeError, error, None)
    say(kept, "perdure.runtime", "delayed", 101.0, action="messages_delayed", exc_info=told)
    assert "a defect" in kept.lines[1]["exception"]


def test_a_clock_that_is_set_back_silences_nothing(kept: _Kept) -> None:
    for at in (5_000.0, 100.0):
        say(kept, "perdure.runtime", "delayed", at, action="messages_delayed")
    assert len(kept.lines) == 2
