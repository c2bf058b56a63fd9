"""The codec's bytes are those of the Avro library with the whole envelope, and do not change unnoticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure_schemas import schema
from perdure_schemas.codec import (
    CodecError,
    body_type,
    decode,
    decode_change,
    decode_events,
    decode_task,
    decode_timer,
    encode,
    encode_change,
    encode_events,
    encode_task,
    encode_timer,
)
from perdure_schemas.events import Recorded
from perdure_schemas.messages import DispatchTask, Message, RunChanged, ScheduleTimer, TaskChanged
from tests.schemas import oracle

GOLDEN = Path(__file__).with_name("golden")
WRITE = "PERDURE_WRITE_GOLDEN"
"""Set this variable to write the golden files anew."""


def test_the_bytes_are_those_of_the_whole_envelope(message: Message) -> None:
    assert encode(message) == oracle.write(message)


def test_the_avro_library_reads_the_bytes_with_the_whole_envelope(message: Message) -> None:
    assert oracle.read(encode(message), oracle.family_of(type(message.body))) == oracle.envelope(message)


def test_a_message_survives_its_bytes(message: Message) -> None:
    assert decode(encode(message)) == message


def test_bytes_are_those_of_the_golden_file(message: Message) -> None:
    binary, readable = (GOLDEN / f"{body_type(message)}{suffix}" for suffix in (".bin", ".json"))
    text = json.dumps(msgspec.to_builtins(oracle.envelope(message)), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get(WRITE):
        binary.write_bytes(encode(message))
        readable.write_text(text, "utf-8")
    assert encode(message) == binary.read_bytes()
    assert decode(binary.read_bytes()) == message
    assert text == readable.read_text("utf-8")


def test_every_golden_file_is_of_a_message_that_exists() -> None:
    names = {body.__name__ for bodies in schema.BODIES.values() for body in bodies}
    assert {path.stem for path in GOLDEN.iterdir()} == names


def test_what_stores_keep_survives(samples: dict[str, Any]) -> None:
    events: list[Recorded] = samples["HistoryPage"].events
    assert decode_events(encode_events(events)) == events
    assert decode_events(encode_events(tuple(events))) == events
    assert decode_events(encode_events([])) == []
    timer: ScheduleTimer = samples["ScheduleTimer"]
    assert decode_timer(encode_timer(timer)) == timer
    run: RunChanged = samples["RunChanged"]
    task: TaskChanged = samples["TaskChanged"]
    assert [decode_change(encode_change(change)) for change in (run, task)] == [run, task]
    dispatch: DispatchTask = samples["DispatchTask"]
    assert decode_task(encode_task(dispatch)) == dispatch


def test_one_record_is_not_taken_for_another(samples: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="DispatchTask"):
        decode_timer(encode_task(samples["DispatchTask"]))
