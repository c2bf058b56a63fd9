"""The codec's bytes are those of the Avro library with the whole envelope, and do not change unnoticed."""

from __future__ import annotations

import json
import os
import typing
from pathlib import Path
from typing import Any

import pytest

from perdure_schemas import events, schema
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
from tests.schemas.conftest import sample

GOLDEN = Path(__file__).with_name("golden")
CURRENT = GOLDEN / "0.1"
STORED = Path(__file__).with_name("stored") / "0.1"
"""Of the release at work; those of older releases are read in test_schemas_releases."""
WRITE = "PERDURE_WRITE_GOLDEN"
"""Set this variable to write the golden files anew."""


def test_the_bytes_are_those_of_the_whole_envelope(message: Message) -> None:
    assert encode(message) == oracle.write(message)


def test_the_avro_library_reads_the_bytes_with_the_whole_envelope(message: Message) -> None:
    assert oracle.read(encode(message), schema.family(type(message.body))) == oracle.envelope(message)


def test_a_message_survives_its_bytes(message: Message) -> None:
    assert decode(encode(message)) == message


def test_bytes_are_those_of_the_golden_file(message: Message) -> None:
    data = same_as_golden(CURRENT / body_type(message), encode(message), oracle.readable(message))
    assert decode(data) == message


@pytest.mark.parametrize("kind", typing.get_args(events.Event), ids=lambda kind: kind.__name__)
def test_stored_bytes_are_those_of_the_golden_file(kind: type[Any]) -> None:
    recorded = Recorded(seq=7, at=1_700_000_000_123, cause="cause", event=sample(kind, "event"))
    data = same_as_golden(STORED / kind.__name__, encode_events([recorded]), oracle.readable(recorded))
    assert decode_events(data) == [recorded]


def same_as_golden(path: Path, data: bytes, readable: Any) -> bytes:
    """The bytes of the file."""
    text = json.dumps(readable, indent=1, ensure_ascii=False) + "\n"
    binary, json_file = (path.with_name(path.name + suffix) for suffix in (".bin", ".json"))
    if os.environ.get(WRITE):
        binary.write_bytes(data)
        json_file.write_text(text, "utf-8")
    assert data == binary.read_bytes()
    assert text == json_file.read_text("utf-8")
    return data


def test_every_golden_file_is_of_a_message_that_exists() -> None:
    names = {body.__name__ for bodies in schema.BODIES.values() for body in bodies}
    assert {path.stem for path in CURRENT.iterdir()} == names


def test_what_stores_keep_survives(samples: dict[str, Any]) -> None:
    recorded: list[Recorded] = samples["HistoryPage"].events
    assert decode_events(encode_events(recorded)) == recorded
    assert decode_events(encode_events(tuple(recorded))) == recorded
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
