"""The values Avro records are made of, as bytes: integers, sizes, texts, arrays.

Generated coders inline the common short forms and call these for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
UINT64_MAX = 2**64 - 1
VARINT_BYTES_MAX = 10
"""What 64 bits take, 7 to a byte."""
NESTING_MAX = 100
"""How deep a record may hold others of its own type: the causes of a failure. Our own writers stop at 10; without a
limit, a few kilobytes from anywhere could exhaust the stack of who reads them."""


class CodecError(ValueError):
    """These bytes are no message of this contract, or this message cannot be written in it."""


# --- writing -------------------------------------------------------------------------------------


SMALL = 1024
"""Below this, integers and sizes are looked up."""


def integer(value: int) -> bytes:
    """Zigzag, then 7 bits to a byte, low ones first."""
    return INTEGERS[value] if 0 <= value < SMALL else _integer(value)


@lru_cache(maxsize=1024)  # times, mostly of the present
def _integer(value: int) -> bytes:
    if not INT64_MIN <= value <= INT64_MAX:
        raise CodecError(f"{value} does not fit into 64 bits")
    rest = (value << 1) ^ (value >> 63)
    written = bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)


INTEGERS = tuple(_integer(value) for value in range(SMALL))


def text(value: str) -> bytes:
    data = value.encode()
    return integer(len(data)) + data


def octets(value: bytes) -> bytes:
    return integer(len(value)) + value


def array(values: Sequence[Any], write: Callable[[Any], bytes]) -> bytes:
    """One block, then the empty block that ends an array."""
    if not values:
        return b"\x00"
    return b"".join((integer(len(values)), *map(write, values), b"\x00"))


# --- reading -------------------------------------------------------------------------------------
# A position beyond the end is found by the next read of a byte, or at the very end: slices need no check each.

BOOLEANS = {0: False, 1: True}
SHORT_INTEGERS = tuple((byte >> 1) ^ -(byte & 1) for byte in range(0x80))
"""By their one byte."""
SHORT_SIZES = tuple(-1 if byte & 0x81 else byte >> 1 for byte in range(0x100))
"""By their one byte; -1: more bytes follow, or it is negative."""


TIME_BYTES = 6
"""What milliseconds since 1970 take, until 2039."""
TIMES_MAX = 1024
"""Times are mostly of the present: under load the same millisecond stands in many messages, one after another."""
_times: dict[bytes, int] = {}


def read_integer(data: bytes, at: int) -> tuple[int, int]:
    """The integer at a position, and the position after it."""
    first = data[at]
    if first < 0x80:
        return SHORT_INTEGERS[first], at + 1
    second = data[at + 1]
    if second < 0x80:
        value = first & 0x7F | second << 7
        return (value >> 1) ^ -(value & 1), at + 2
    known = _times.get(data[at : at + TIME_BYTES])  # no integer is the beginning of another
    return _read_integer(data, at) if known is None else (known, at + TIME_BYTES)


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    raw = shift = 0
    for byte in data[at : at + VARINT_BYTES_MAX]:
        raw |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise CodecError("an integer without end")
    if raw > UINT64_MAX:
        raise CodecError("an integer of more than 64 bits")
    value, size = (raw >> 1) ^ -(raw & 1), shift // 7
    if size == TIME_BYTES:
        if len(_times) >= TIMES_MAX:
            _times.clear()
        _times[data[at : at + size]] = value
    return value, at + size


def read_size(data: bytes, at: int) -> tuple[int, int]:
    size, at = read_integer(data, at)
    if size < 0:
        raise CodecError(f"a size of {size}")
    return size, at


def read_long(data: bytes, _latin: str, at: int) -> tuple[int, int]:
    return read_integer(data, at)


def read_text(data: bytes, latin: str, at: int) -> tuple[str, int]:
    size, at = read_size(data, at)
    value = latin[at : at + size]
    return (value if value.isascii() else data[at : at + size].decode()), at + size


def read_array(
    data: bytes, latin: str, at: int, read: Callable[[bytes, str, int], tuple[Any, int]]
) -> tuple[list[Any], int]:
    """Every item takes a byte or more, so a count beyond what the bytes hold ends with them."""
    items: list[Any] = []
    while count := data[at]:
        count, at = (count >> 1, at + 1) if count & 0x81 == 0 else _block(data, at)
        for _ in range(count):
            item, at = read(data, latin, at)
            items.append(item)
    return items, at + 1


def _block(data: bytes, at: int) -> tuple[int, int]:
    """How many items follow, from where. A negative count has the size in bytes behind it, for readers that skip."""
    count, at = read_integer(data, at)
    if count >= 0:
        return count, at
    return -count, read_size(data, at)[1]


def refuse(where: str, value: object) -> NoReturn:
    raise CodecError(f"{where} is {value!r}, which this release does not know")
