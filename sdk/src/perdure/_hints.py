"""What type hints have around the type that they name."""

from __future__ import annotations

import typing
from typing import Any


def unaliased(hint: Any) -> Any:
    """What an alias stands for, one of `type X = ...` as Python 3.12 has it; any other hint is itself."""
    return hint.__value__ if type(hint).__name__ == "TypeAliasType" else hint


def stripped(hint: Any) -> Any:
    """Without aliases and `Annotated`."""
    while True:
        inner = unaliased(hint)
        if typing.get_origin(inner) is typing.Annotated:
            inner = typing.get_args(inner)[0]
        if inner is hint:
            return hint
        hint = inner
