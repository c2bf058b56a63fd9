"""Anything can arrive: `decode` gives a message or a `CodecError`, and agrees with the Avro library on which."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure_schemas import codec, schema
from perdure_schemas.codec import CodecError, decode, encode
from perdure_schemas.messages import HistoryPage, Message
from tests.schemas import oracle
from tests.schemas.conftest import sample_message
from tests.schemas.strategies import messages_of

EXAMPLES = 6
"""Per message type: over forty types a few hundred values, in seconds."""
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
FEW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW, database=None)
MANY = settings(max_examples=400, deadline=None, database=None)


def test_any_message_has_the_bytes_of_the_avro_library_and_survives_them(body: type[Any]) -> None:
    @FEW
    @given(messages_of(body))
    def same(message: Message) -> None:
        data = encode(message)
        assert data == oracle.write(message)
        assert decode(data) == message

    same()


@MANY
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    for decoder in (decode, codec.decode_events, codec.decode_timer, codec.decode_change, codec.decode_task):
        try:
            decoder(data)
        except CodecError:
            pass


def test_damaged_bytes_are_refused_or_what_the_avro_library_makes_of_them(message: Message) -> None:
    data = encode(message)

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.integers(0, len(data) - 1), st.binary(max_size=4), st.integers(0, 4))
    def damaged(at: int, junk: bytes, dropped: int) -> None:
        changed = data[:at] + junk + data[at + dropped :]
        try:
            decoded = decode(changed)
        except CodecError:
            return
        family = schema.family(type(decoded.body))
        read = oracle.read(changed, family)
        assert oracle.envelope(decoded) == oracle.known(schema.ENVELOPES[family], read)

    damaged()


def test_a_truncated_message_is_refused(message: Message) -> None:
    data = encode(message)
    # Nulls at the end say nothing: an envelope of an older release has fewer.
    significant = len(data.rstrip(b"\x00"))
    for end in range(significant - 1):
        with pytest.raises(CodecError):
            decode(data[:end])


def test_bytes_after_the_end_are_refused(message: Message) -> None:
    with pytest.raises(CodecError, match="after the end"):
        decode(encode(message) + b"\x01")


@pytest.mark.parametrize("version", [b"\x00", b"\x04", b"\x01"])
def test_another_version_is_refused(version: bytes, message: Message) -> None:
    with pytest.raises(CodecError, match="version"):
        decode(version + encode(message)[1:])


def test_an_unknown_type_is_refused_and_named() -> None:
    with pytest.raises(CodecError, match="unknown type 'RunTusk'"):
        decode(b"\x02\x0eRunTusk" + b"\x00" * 40)


def test_a_member_other_than_the_type_says_is_refused(message: Message) -> None:
    data = encode(message)
    name = type(message.body).__name__.encode()
    family = schema.family(type(message.body))
    others = [body.__name__.encode() for body in schema.BODIES[family] if body is not type(message.body)]
    for other in others:
        with pytest.raises(CodecError):
            decode(data[:1] + bytes([len(other) << 1]) + other + data[2 + len(name) :])


def test_nulls_after_the_body_are_nulls(message: Message) -> None:
    data = encode(message)
    for position in range(len(data.rstrip(b"\x00")) + 1, len(data)):
        with pytest.raises(CodecError):
            decode(data[:position] + b"\x02" + data[position + 1 :])


def event(kind: bytes) -> tuple[Message, int]:
    """A history page with an event of every kind, and where this one's `type` stands."""
    page = sample_message(HistoryPage)
    return page, encode(page).index(bytes([2 * len(kind)]) + kind)


@pytest.mark.parametrize("kind", [b"Started", b"SignalReceived", b"RunMoved"])
def test_an_event_has_the_member_its_type_says_and_no_other(kind: bytes) -> None:
    page, at = event(kind)
    data = encode(page)
    names = [each["name"] for each in schema.record("Event")["fields"][1:]]
    position = names.index(oracle.snake(kind.decode()))
    members = at + 1 + len(kind)
    assert data[members : members + position + 1] == b"\x00" * position + b"\x02"
    following = data.index(b"\x00" * (len(names) - position - 1), members + position + 1)
    for other in [*range(members, members + position), following, following + len(names) - position - 2]:
        with pytest.raises(CodecError):
            decode(data[:other] + b"\x02" + data[other + 1 :])
