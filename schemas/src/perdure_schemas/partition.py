"""Which partition of a topic a key belongs to: one rule, the same in every language.

`schemas/vectors/partition.json` holds keys with their partitions, for any language to check itself.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_C1 = 0xCC9E2D51
_C2 = 0x1B873593
_POSITIVE = 0x7FFFFFFF
"""Drops the sign bit, which languages without unsigned integers would take for a sign."""


def partition(key: str, count: int) -> int:
    """The partition of `key` among `count`, from 0.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"a topic has at least one partition, not {count}")
    return (murmur3_32(key.encode()) & _POSITIVE) % count


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """MurmurHash3 x86 32-bit, unsigned."""
    state = seed
    tail = len(data) & ~3
    for start in range(0, tail, 4):
        state ^= _scramble(int.from_bytes(data[start : start + 4], "little"))
        state = (_rotate(state, 13) * 5 + 0xE6546B64) & _MASK
    if tail < len(data):
        state ^= _scramble(int.from_bytes(data[tail:], "little"))
    return _finalise(state ^ len(data))


def _scramble(block: int) -> int:
    return (_rotate((block * _C1) & _MASK, 15) * _C2) & _MASK


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _finalise(state: int) -> int:
    state ^= state >> 16
    state = (state * 0x85EBCA6B) & _MASK
    state ^= state >> 13
    state = (state * 0xC2B2AE35) & _MASK
    return state ^ (state >> 16)
