"""What older releases wrote is read, and they can read what this one writes: FULL_TRANSITIVE, as brokers call it."""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from perdure_schemas import codec, events, schema
from perdure_schemas.coders import Coders
from perdure_schemas.events import Recorded
from perdure_schemas.messages import Message, TaskOutcome
from tests.schemas import oracle
from tests.schemas.compatibility import full_breaks
from tests.schemas.conftest import BODIES, sample, sample_message

GOLDEN = Path(__file__).with_name("golden")
WRITE = "PERDURE_WRITE_GOLDEN"
"""Set this variable to freeze the schemas of the present release again."""
STORED = Path(__file__).with_name("stored")
RELEASES = list(schema.RELEASES)
ROOTS = [*schema.ENVELOPES.values(), "ScheduleTimer", "RunChanged", "TaskChanged", "DispatchTask", "Recorded"]
"""Envelopes, and records that stores keep without one."""
REFUSED_BY_OLDER_READERS: set[str] = set()
"""Values added to an enum for which older readers have no other: readers are upgraded before writers use them."""


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ROOTS)
def test_a_schema_reads_and_is_read_by_each_released_one(release: str, name: str) -> None:
    breaks = full_breaks(schema.compose(name, release), schema.compose(name))
    assert set(breaks) - REFUSED_BY_OLDER_READERS == set()


def current_releases() -> list[str]:
    return [release for release, version in schema.RELEASES.items() if version == schema.VERSION]


@pytest.mark.parametrize("release", current_releases())
def test_one_version_has_one_set_of_records(release: str) -> None:
    """Whoever changes a record raises `schema.VERSION`: by the `v` of the bytes a reader finds the writer's schemas."""
    if os.environ.get(WRITE):
        freeze(release)
    frozen = {path.stem for path in released(release).glob("*.avsc")}
    assert frozen <= {path.stem for path in schema.folder().glob("*/*.avsc")}
    for name in frozen:
        mine, theirs = shape(schema.record(name)), shape(schema.record(name, release))
        if name in schema.ENVELOPES.values():
            mine = mine[: len(theirs)]
        assert mine == theirs, f"{name} is not as in {release}, with the same v"


def freeze(release: str) -> None:
    """While the release is not published: from then on its schemas never change."""
    for path in schema.folder().glob("*/*.avsc"):
        (released(release) / path.name).write_bytes(path.read_bytes())
    schema.record.cache_clear()
    schema._files.cache_clear()


def released(release: str) -> Path:
    return schema.folder() / "released" / release


def shape(record: dict[str, Any]) -> list[tuple[str, Any]]:
    """What decides on the bytes."""
    return [(each["name"], each["type"]) for each in record["fields"]]


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_wrote_is_read(release: str) -> None:
    files = sorted((GOLDEN / release).glob("*.bin"))
    assert files
    for path in files:
        message = codec.decode(path.read_bytes())
        written = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert holds(json.loads(json.dumps(oracle.readable(message))), written | {"v": schema.VERSION}), path.name


@pytest.mark.parametrize("release", RELEASES)
def test_histories_that_a_release_stored_are_read(release: str) -> None:
    """Stores keep histories as MessagePack: by the names of fields, which takes and gives additions by itself."""
    files = sorted((STORED / release).glob("*.bin"))
    assert [path.stem for path in files] == sorted(kind.__name__ for kind in typing.get_args(events.Event))
    for path in files:
        (record,) = codec.decode_events(path.read_bytes())
        written = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert holds(json.loads(json.dumps(oracle.readable(record))), written), path.name


def holds(mine: Any, written: Any) -> bool:
    """Whether everything that was written is there; fields may have been added since."""
    if isinstance(written, dict):
        return isinstance(mine, dict) and all(name in mine and holds(mine[name], written[name]) for name in written)
    if isinstance(written, list):
        return len(mine) == len(written) and all(holds(one, other) for one, other in zip(mine, written, strict=True))
    return bool(mine == written)


def test_a_stored_history_with_fields_that_are_not_known_is_read() -> None:
    """After a step back to an older release. A kind of event that is not known is refused."""
    events_before = [Recorded(seq=1, at=1, cause="c", event=events.Paused(reason="r", actor="a"))]
    data = codec.encode_events(events_before)
    newer = data.replace(b"\xa4type\xa6Paused", b"\xa3new\x01\xa4type\xa6Paused").replace(
        b"\x83\xa3new", b"\x84\xa3new"
    )
    assert newer != data
    assert codec.decode_events(newer) == events_before
    with pytest.raises(codec.CodecError, match="Pausex"):
        codec.decode_events(data.replace(b"\xa6Paused", b"\xa6Pausex"))


# --- a reader and a writer of different releases ---------------------------------------------------


def changed(name: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[str], dict[str, Any]]:
    """Today's schemas, but for one."""

    def record(wanted: str) -> dict[str, Any]:
        found = deepcopy(schema.record(wanted))
        if wanted == name:
            change(found["fields"])
        return found

    return record


def without(field: str) -> Callable[[list[dict[str, Any]]], object]:
    def change(fields: list[dict[str, Any]]) -> None:
        fields[:] = [each for each in fields if each["name"] != field]

    return change


def read_with(records: Callable[[str], dict[str, Any]], data: bytes) -> Message:
    message: Message = Coders(records, schema.VERSION).of_message("TaskOutcome", "workflow-engine")[1](data)
    return message


def written_with(records: Callable[[str], dict[str, Any]], message: Message, **more: Any) -> bytes:
    """By the Avro library, `more` being new fields of the failure."""
    inlined = inline(schema.record("WorkflowEngineEnvelope"), records, set())
    fields = oracle.envelope(message)
    fields["task_outcome"]["failure"] |= more
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(inlined), fields)
    return stream.getvalue()


def inline(node: Any, records: Callable[[str], dict[str, Any]], seen: set[str]) -> Any:
    match node:
        case str(name) if name[0].isupper():
            if name in seen:
                return f"{schema.NAMESPACE}.{name}"
            seen.add(name)
            return inline(records(name), records, seen)
        case list():
            return [inline(each, records, seen) for each in node]
        case {"fields": fields}:
            return {**node, "fields": [{**each, "type": inline(each["type"], records, seen)} for each in fields]}
        case {"items": items}:
            return {**node, "items": inline(items, records, seen)}
        case _:
            return node


def test_fields_an_older_writer_did_not_have_are_read_as_their_defaults() -> None:
    older = changed("Failure", without("retryable"))
    message = sample_message(TaskOutcome)
    data = written_with(older, message)
    assert data != codec.encode(message)
    body = read_with(older, data).body
    assert isinstance(body, TaskOutcome)
    assert body.failure is not None
    assert body.failure.retryable is True
    assert body.failure.next_delay_ms is not None
    assert (body.command_id, body.result) == (message.body.command_id, message.body.result)  # type: ignore[union-attr]


def test_fields_of_a_newer_writer_are_skipped() -> None:
    new = {"name": "new", "type": ["null", "Address"], "default": None}
    newer = changed("Failure", lambda fields: fields.insert(2, new))
    message = sample_message(TaskOutcome)
    data = written_with(newer, message, new={"topic": "t", "key": "k"})
    assert read_with(newer, data) == message


def test_a_message_type_added_to_the_envelope_changes_nothing() -> None:
    message = sample_message(BODIES["TaskOutcome"])
    data = codec.encode(message)
    assert codec.decode(data + b"\x00\x00") == message
    assert codec.decode(data[:-1]) == message


# --- the checker catches what it is there for -------------------------------------------------------


def named(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in fields if each["name"] == name)


def renamed_symbol(fields: list[dict[str, Any]]) -> None:
    symbols = named(fields, "outcome")["symbols"]
    symbols[symbols.index("timed-out")] = "late"


def added_symbol(fields: list[dict[str, Any]]) -> None:
    named(fields, "outcome")["symbols"].append("late")


NULLABLE = {"name": "new", "type": ["null", "string"], "default": None}
REQUIRED = {"name": "new", "type": "string"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(without("generation"), "old reader, new data: TaskOutcome.generation", id="removed, no default"),
        pytest.param(lambda f: f.append(REQUIRED), "new reader, old data: TaskOutcome.new", id="added, no default"),
        pytest.param(lambda f: named(f, "attempt").update(type="string"), "long is read as string", id="another type"),
        pytest.param(lambda f: named(f, "attempt").update(type="double"), "double is read as long", id="wider"),
        pytest.param(lambda f: named(f, "attempt").update(name="try"), "TaskOutcome.attempt", id="renamed field"),
        pytest.param(lambda f: named(f, "result").update(type="Payload"), "null is read as record", id="not nullable"),
        pytest.param(lambda f: named(f, "result").update(type=["null", "Failure"]), "Payload", id="another record"),
        pytest.param(renamed_symbol, "'timed-out' is refused", id="renamed symbol"),
        pytest.param(added_symbol, "old reader, new data: TaskOutcome.outcome: 'late'", id="added symbol"),
        pytest.param(lambda f: f.append(NULLABLE), None, id="added with a default"),
        pytest.param(without("failure"), None, id="removed with a default"),
        pytest.param(lambda f: f.reverse(), None, id="another order"),
    ],
)
def test_a_change_that_breaks_readers_is_found(
    change: Callable[[list[dict[str, Any]]], object], reason: str | None
) -> None:
    old = schema.compose("WorkflowEngineEnvelope")
    new = inline(schema.record("WorkflowEngineEnvelope"), changed("TaskOutcome", change), set())
    breaks = full_breaks(old, new)
    assert bool(breaks) == (reason is not None)
    assert reason is None or any(reason in each for each in breaks), breaks
    if reason is None or ("refused" not in reason and "'late'" not in reason):  # the library knows no symbols
        assert reads_both_ways(old, new) == (reason is None)


def reads_both_ways(old: Any, new: Any) -> bool:
    """Whether the Avro library reads what it wrote with the one by the other."""
    fields = oracle.envelope(sample_message(TaskOutcome))
    fields["task_outcome"] |= {"new": "text", "try": 1}
    unset = fields | {"task_outcome": fields["task_outcome"] | {"result": None}}
    try:
        for writer, reader in ((old, new), (new, old)):
            for each in (fields, unset):
                stream = BytesIO()
                schemaless_writer(stream, parse_schema(writer), each)
                schemaless_reader(BytesIO(stream.getvalue()), parse_schema(writer), parse_schema(reader))
    except (SchemaResolutionError, ValueError, TypeError):
        return False
    return True


def test_samples_have_every_kind_of_event() -> None:
    assert {type(each.event) for each in sample(list[Recorded], "x")} == set(typing.get_args(events.Event))
