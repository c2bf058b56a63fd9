"""Where in a value a decoder found it wrong, told with the names of arguments and keys.

msgspec writes a path: `$` is the whole value, `[2]` an element, `.sku` a field, and `[...]` some value of a mapping,
it does not say which. To find it, the mapping is tried with one of its keys at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

KEYS_TRIED_MAX = 1_000
"""Of one mapping. Each costs one decoding, and this is about a message for people."""

_PATH = re.compile(r"`\$([^`]*)`")
_STEP = re.compile(r"\[\.\.\.\]|\[\d+\]|\.[^.\[]+")
_SOME_KEY = "[...]"


def located(message: str, decode: Callable[[bytes], Any], data: bytes, root: str) -> str:
    """The message of a decoder, its path told from `root` on, which stands for the whole value."""
    found = _PATH.search(message)
    if found is None:
        return message
    path = found[1]
    if _SOME_KEY in path:
        path = _with_keys(path, message, decode, data)
    return f"{message[: found.start()]}`{root}{path}`{message[found.end() :]}"


def _with_keys(path: str, message: str, decode: Callable[[bytes], Any], data: bytes) -> str:
    whole = part = msgspec.json.decode(data)
    told = ""
    for step in _STEP.findall(path):
        key: Any = step[1:] if step.startswith(".") else step[1:-1]
        if step == _SOME_KEY:
            key = _guilty(whole, part, message, decode)
            if key is None:
                return path
            told += f"[{key!r}]"
        else:
            key = key if step.startswith(".") else int(key)
            told += step
        try:
            part = part[key]
        except (LookupError, TypeError):  # a field under another name
            return path
    return told


def _guilty(whole: Any, mapping: Any, message: str, decode: Callable[[bytes], Any]) -> str | None:
    """The key without which the message would be another one."""
    if not isinstance(mapping, dict) or len(mapping) > KEYS_TRIED_MAX:
        return None
    every = dict(mapping)
    for key, value in every.items():
        mapping.clear()
        mapping[key] = value
        try:
            decode(msgspec.json.encode(whole))
        except Exception as error:
            if str(error) == message:
                mapping.clear()
                mapping.update(every)
                return str(key)
    return None
