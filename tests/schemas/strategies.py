"""Any value of any type of the contract."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from perdure_schemas.common import Failure
from perdure_schemas.messages import Message

INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70)
TEXT = st.text(max_size=12) | st.text(alphabet="aß", min_size=60, max_size=70)
"""Also about as long as the size that no longer fits into one byte."""


def values(hint: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Any value of this type; records of their own kind nest twice at most."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
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


def messages_of(body: type[Any]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        id=TEXT,
        namespace=TEXT,
        key=TEXT,
        at=INT64,
        emitter=TEXT,
        causation_id=values(str | None),
        traceparent=values(str | None),
        body=values(body),
    )
