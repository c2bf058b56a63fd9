"""Sample messages, made from the types of the structs: one of every type, every nullable field set."""

from __future__ import annotations

import types
import typing
from typing import Any
from zlib import crc32

import msgspec
import pytest
from msgspec import Struct

from perdure_schemas import common, events, messages
from perdure_schemas.messages import Message

BODIES: dict[str, type[Any]] = {body.__name__: body for body in typing.get_args(messages.Body)}
NESTING_MAX = 2
"""How deep a record of a sample holds another of its own type."""


def sample(hint: Any, name: str, within: tuple[Any, ...] = ()) -> Any:
    """A value of this type, the same every time and different from the field's default."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is common.Payload:
        return common.Payload("json", f'["{name} ü"]'.encode())
    if isinstance(hint, type) and issubclass(hint, Struct):
        hints = typing.get_type_hints(hint)
        if within.count(hint) >= NESTING_MAX:
            return None
        inner = (*within, hint)
        fields = msgspec.structs.fields(hint)
        return hint(**{field.name: sample(hints[field.name], field.name, inner) for field in fields})
    if origin is typing.Literal:
        return args[-1]
    if origin is list and args[0] is events.Recorded:
        kinds = typing.get_args(events.Event)
        return [events.Recorded(seq=n, at=n, cause=name, event=sample(kind, name)) for n, kind in enumerate(kinds, 1)]
    if origin is list:
        return [sample(args[0], f"{name}-1", within), sample(args[0], f"{name}-2", within)]
    if origin in (typing.Union, types.UnionType):
        return sample(next(arg for arg in args if arg is not types.NoneType), name, within)
    simple = {str: f"{name} ü", int: crc32(name.encode()) * 1_000_003, float: 0.25, bool: True, bytes: b"\x00\xff"}
    return simple[hint]


def sample_message(body: type[Any]) -> Message:
    return Message(
        id=f"id of {body.__name__}",
        namespace="default",
        key="key ü",
        at=1_700_000_000_123,
        body=sample(body, "body"),
        emitter="worker 1",
        causation_id="cause",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


@pytest.fixture(scope="session")
def samples() -> dict[str, Any]:
    """The bodies, by type."""
    return {name: sample(body, "body") for name, body in BODIES.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "message" in metafunc.fixturenames:
        metafunc.parametrize("message", [sample_message(body) for body in BODIES.values()], ids=list(BODIES))
    if "body" in metafunc.fixturenames:
        metafunc.parametrize("body", list(BODIES.values()), ids=list(BODIES))
