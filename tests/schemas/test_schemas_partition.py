"""The partition of a key is the same in every language: by vectors that each checks itself against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure_schemas.partition import murmur3_32, partition

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "schemas/vectors/partition.json").read_text("utf-8")
)["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["key"][:20] or "empty")
def test_a_key_has_the_hash_and_the_partitions_of_its_vector(vector: dict[str, Any]) -> None:
    assert murmur3_32(vector["key"].encode()) == vector["murmur3_32"]
    for count, expected in vector["partitions"].items():
        assert partition(vector["key"], int(count)) == expected


def test_the_vectors_reach_every_branch() -> None:
    sizes = {len(vector["key"].encode()) % 4 for vector in VECTORS}
    assert sizes == {0, 1, 2, 3}, "every length of the tail"
    assert any(vector["murmur3_32"] >= 2**31 for vector in VECTORS), "a hash whose sign bit is set"
    assert any(not vector["key"].isascii() for vector in VECTORS)


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        (b"", 0, 0),
        (b"", 1, 0x514E28B7),
        (b"", 0xFFFFFFFF, 0x81F16F39),
        (b"\x00\x00\x00\x00", 0, 0x2362F9DE),
        (b"\xff\xff\xff\xff", 0, 0x76293B50),
        (b"\x21\x43\x65\x87", 0x5082EDEE, 0x2362F9DE),
        (b"Hello, world!", 0x9747B28C, 0x24884CBA),
    ],
)
def test_the_hash_is_the_published_one(data: bytes, seed: int, expected: int) -> None:
    assert murmur3_32(data, seed) == expected


@pytest.mark.parametrize("count", [0, -1])
def test_a_topic_without_partitions_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        partition("key", count)
