"""Anything can arrive: `decode` gives a message or a `CodecError`."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from perdure_schemas import codec
from perdure_schemas.codec import CodecError, decode, encode
from perdure_schemas.common import Failure
from perdure_schemas.messages import Body, Message, TaskOutcome

EXAMPLES = 6
"""Per message type: over forty types a few hundred values, in seconds."""
INT64 = st.integers(-(2**63), 2**63 - 1)
FEW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
MANY = settings(max_examples=400, deadline=None, database=None)


def values(hint: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Any value of this type; records of their own kind nest twice at most."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=12),
        int: INT64,
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        bytes: st.binary(max_size=12),
    }
    if hint in simple:
        return simple[hint]
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(values(args[0], depth), max_size=2)
    if origin in (typing.Union, types.UnionType):
        if Failure in args and depth > 1:
            return st.none()
        return st.one_of([st.none() if arg is types.NoneType else values(arg, depth) for arg in args])
    assert issubclass(hint, Struct), hint
    hints = typing.get_type_hints(hint)
    nested = depth + (hint is Failure)
    return st.builds(hint, **{f.name: values(hints[f.name], nested) for f in msgspec.structs.fields(hint)})


def test_any_message_of_any_type_survives(body: type[Any]) -> None:
    @FEW
    @given(id=values(str), key=values(str), at=INT64, causation=values(str | None), body=values(body))
    def survives(*, id: str, key: str, at: int, causation: str | None, body: Body) -> None:
        message = Message(id=id, namespace="n", key=key, at=at, body=body, causation_id=causation)
        assert decode(encode(message)) == message

    survives()


@MANY
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    for decoder in (decode, codec.decode_events, codec.decode_timer, codec.decode_change, codec.decode_task):
        try:
            decoder(data)
        except CodecError:
            pass


def test_bytes_damaged_anywhere_are_a_message_or_refused(message: Message) -> None:
    data = encode(message)

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=4))
    def damaged(at: int, junk: bytes) -> None:
        try:
            decoded = decode(data[:at] + junk + data[at + len(junk) :])
        except CodecError:
            return
        assert isinstance(decoded, Message)

    damaged()


def test_a_truncated_message_is_refused(message: Message) -> None:
    data = encode(message)
    # Nulls at the end say nothing: an envelope of an older release has fewer.
    significant = len(data.rstrip(b"\x00"))
    for end in {0, 1, 2, 5, significant // 2, significant - 1}:
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
    other = next(name for name in (b"RunTask", b"MoveRun") if name.decode() != type(message.body).__name__)
    name = type(message.body).__name__.encode()
    with pytest.raises(CodecError):
        decode(data[:1] + bytes([len(other) << 1]) + other + data[2 + len(name) :])


def outcome(failure: Failure) -> Message:
    body = TaskOutcome(
        workflow_id="w", run_id="r", command_id="c", generation=0, attempt=1, outcome="failed", failure=failure
    )
    return Message(id="i", namespace="n", key="k", at=1, body=body)


@pytest.mark.parametrize(
    "bad", [Failure(name="\ud800", message=""), Failure(name="n", message="", next_delay_ms=2**63)]
)
def test_what_the_contract_cannot_hold_is_not_written(bad: Failure) -> None:
    with pytest.raises(CodecError):
        encode(outcome(bad))
