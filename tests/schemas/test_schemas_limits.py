"""Bytes made to harm whoever reads them, and values the contract cannot hold."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure_schemas import codec, primitives
from perdure_schemas.codec import CodecError, decode, encode
from perdure_schemas.common import NULL, Address, Failure, Payload, TaskOptions
from perdure_schemas.events import CommandSettled, Recorded
from perdure_schemas.messages import DispatchTask, Message, RunPurged, TaskOutcome, WorkerHello
from perdure_schemas.primitives import NESTING_MAX, integer

SECONDS_MAX = 5.0
"""Of the processor's time. Far more than linear work on these bytes takes, far less than what they ask for."""
NOW = 1_700_000_000_000
BYTES_PER_BYTE_MAX = 50
"""Memory per byte read: a record of two empty texts, two bytes, is a struct of some forty and its place in a list."""
COUNT = 200_000


def message(body: Any) -> Message:
    return Message(id="i", namespace="n", key="k", at=1, body=body)


def outcome(failure: Failure) -> Message:
    return message(
        TaskOutcome(
            workflow_id="w", run_id="r", command_id="c", generation=0, attempt=1, outcome="failed", failure=failure
        )
    )


def nested(levels: int) -> Failure:
    failure = Failure(name="n", message="")
    for _ in range(levels - 1):
        failure = Failure(name="n", message="", cause=failure)
    return failure


def bomb(levels: int) -> bytes:
    """A failure with so many causes, as bytes: structs nested so deep would not be written."""
    data = encode(outcome(Failure(name="A", message="b", cause=Failure(name="XX", message="b"))))
    inner = data.index(b"\x04XX")
    level = data[data.index(b"\x02A") : inner]
    tail = b"\x01\x00"  # retryable, no next delay
    end = data.index(tail, inner) + len(tail)
    return data[:inner] + level * levels + data[inner:end] + tail * levels + data[end:]


def test_the_bomb_is_a_message_but_for_its_depth() -> None:
    deepest = decode(bomb(NESTING_MAX - 2))
    assert isinstance(deepest.body, TaskOutcome)
    assert decode(encode(deepest)) == deepest


@pytest.mark.parametrize("levels", [NESTING_MAX - 1, 10_000, 1_000_000])
def test_causes_nested_without_end_are_refused(levels: int) -> None:
    with pytest.raises(CodecError, match="nested"):
        decode(bomb(levels))


def test_causes_nested_without_end_in_a_stored_history_are_refused() -> None:
    failure = msgspec.msgpack.encode(Failure(name="n", message=""))
    begin, end = failure.split(b"\xa5cause\xc0")
    levels = 200_000
    bomb = begin + b"\xa5cause"
    event = Recorded(seq=1, at=1, cause="c", event=CommandSettled(command_id="c", outcome="failed", failure=nested(1)))
    data = codec.encode_events([event]).replace(failure, bomb * levels + b"\xc0" + end * levels)
    with pytest.raises(CodecError, match="recursion"):
        codec.decode_events(data)


@pytest.mark.parametrize("depth", [NESTING_MAX + 1, 100_000])
def test_a_failure_nested_too_deep_is_not_written(depth: int) -> None:
    with pytest.raises(CodecError, match="nested"):
        encode(outcome(nested(depth)))


def test_a_failure_nested_too_deep_is_not_stored() -> None:
    settled = CommandSettled(command_id="c", outcome="failed", failure=nested(100_000))
    with pytest.raises(CodecError, match="recursion"):
        codec.encode_events([Recorded(seq=1, at=1, cause="c", event=settled)])


HELLO = message(WorkerHello(worker="w", build="", workflows=[], tasks=[], slots=1))
"""Its arrays are empty: a null byte each, before the slots."""


def with_array(count: int, items: bytes = b"") -> bytes:
    data = encode(HELLO)
    at = data.index(b"\x02w\x00\x00\x00\x02") + 3  # worker, build; then workflows, tasks, slots
    return data[:at] + integer(count) + items + data[at:]


@pytest.mark.parametrize("count", [2**62, 2**31, 1000, -(2**62), -(2**63)])
def test_an_array_longer_than_its_bytes_is_refused_at_once(count: int) -> None:
    started = time.thread_time()
    with pytest.raises(CodecError):
        decode(with_array(count))
    assert time.thread_time() - started < SECONDS_MAX


def test_arrays_in_blocks_with_their_size_are_read() -> None:
    # Two blocks: one with its size in bytes, as writers in other languages may have it, one without.
    data = with_array(-2, integer(5) + b"\x02a\x04bc" + integer(1) + b"\x02d")
    body = decode(data).body
    assert isinstance(body, WorkerHello)
    assert body.workflows == ["a", "bc", "d"]


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda data: data.replace(b"\x02w", b"\xfe\xff\xff\xff\x0fw"), id="a size beyond the end"),
        pytest.param(lambda data: data.replace(b"\x02w", b"\x01w"), id="a negative size"),
        pytest.param(lambda data: data.replace(b"\x02w", b"\x80" * 11 + b"\x00w"), id="an integer without end"),
        pytest.param(lambda data: data.replace(b"\x02w", b"\xff" * 9 + b"\x7f"), id="an integer of 70 bits"),
        pytest.param(lambda data: data.replace(b"\x02w", b"\x02\xff"), id="no UTF-8"),
        pytest.param(lambda data: data.replace(b"\x02w", b"\x06\xed\xa0\x80"), id="a lone surrogate"),
    ],
)
def test_values_that_are_none_are_refused(harm: Callable[[bytes], bytes]) -> None:
    data = harm(encode(HELLO))
    assert data != encode(HELLO)
    with pytest.raises(CodecError):
        decode(data)


@pytest.mark.parametrize("branch", [b"\x01", b"\x04", b"\x80", b"\xff"])
def test_a_branch_that_a_union_has_not_is_refused(branch: bytes) -> None:
    data = encode(outcome(nested(1)))
    at = data.index(b"\x02n\x00\x00\x00\x00\x01\x00") + 4  # name, message, stack; then details, cause
    for position in (at, at + 1, at + 3):
        assert data[position] == 0
        with pytest.raises(CodecError):
            decode(data[:position] + branch + data[position + 1 :])


def test_times_that_are_remembered_are_few() -> None:
    for at in range(NOW, NOW + 3 * primitives.TIMES_MAX):
        purged = Message(id="i", namespace="n", key="k", at=at, body=RunPurged(workflow_id="w", run_id="r", name="n"))
        assert decode(encode(purged)).at == at
    assert len(primitives._times) <= primitives.TIMES_MAX


def addresses(count: int) -> bytes:
    """A task with so many empty addresses: the record that takes the most memory for its two bytes."""
    task = DispatchTask(task_id="t", name="n", args=NULL, options=TaskOptions(), answer_to=[Address("", "")] * count)
    return encode(message(task))


@pytest.mark.parametrize(
    "data",
    [pytest.param(with_array(COUNT, b"\x00" * COUNT), id="texts"), pytest.param(addresses(COUNT), id="records")],
)
def test_memory_is_bounded_by_the_bytes(data: bytes) -> None:
    decode(data)  # its code is compiled
    tracemalloc.start()
    try:
        decoded = decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert encode(decoded) == data
    assert peak < BYTES_PER_BYTE_MAX * len(data)


def test_reading_is_linear_in_the_bytes() -> None:
    def seconds(size: int) -> float:
        failure = Failure(name="n", message="", details=Payload("bytes", b"\xff" * size), stack="ü" * size)
        data = encode(outcome(failure))
        started = time.thread_time()
        decode(data)
        return time.thread_time() - started

    assert seconds(10_000_000) < SECONDS_MAX


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(Failure(name="\ud800", message=""), id="a lone surrogate"),
        pytest.param(Failure(name="n", message="", next_delay_ms=2**63), id="over 64 bits"),
        pytest.param(Failure(name="n", message="", next_delay_ms=-(2**63) - 1), id="under 64 bits"),
        pytest.param(msgspec.structs.replace(nested(1), name=None), id="no text"),
        pytest.param(msgspec.structs.replace(nested(1), next_delay_ms=1.5), id="no integer"),
        pytest.param(msgspec.structs.replace(nested(1), details=nested(1)), id="another record"),
    ],
)
def test_what_the_contract_cannot_hold_is_not_written(bad: Failure) -> None:
    with pytest.raises(CodecError):
        encode(outcome(bad))


def test_what_is_no_message_is_not_written() -> None:
    with pytest.raises(CodecError, match="Failure"):
        encode(message(nested(1)))


@pytest.mark.parametrize("end", [0, 1, 2])
def test_the_extremes_of_an_integer_survive(end: int) -> None:
    for at in (-(2**63) + end, 2**63 - 1 - end, -64 + end, 63 - end, 1022 + end):
        purged = Message(id="i", namespace="n", key="k", at=at, body=RunPurged(workflow_id="w", run_id="r", name="n"))
        assert decode(encode(purged)).at == at
