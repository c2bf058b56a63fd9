"""Code that uses a result before it has awaited it is told so: Python itself would only name the class `Deferred`.

Type checkers must not see these methods, or they would let such code pass.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

_BOTH_SIDES = "add sub mul truediv floordiv mod pow matmul divmod lshift rshift xor"
_ONE_SIDE = "neg pos abs int float index lt le gt ge getitem contains"
"""Not: `and` and `or`, which combine; `eq`, `ne` and `hash`, by which it is found; `bool` and `len`, which asyncio
may ask of any future; `call`, which would make it a callable.
"""
OPERATORS = [
    *(f"__{side}{name}__" for name in _BOTH_SIDES.split() for side in ("", "r")),
    *(f"__{name}__" for name in _ONE_SIDE.split()),
]


class Command(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def position(self) -> str: ...


def refuse(cls: type[Command]) -> None:
    """Make operators and unknown attributes of it say what to do."""
    for operator in OPERATORS:
        setattr(cls, operator, _operate)
    cls.__getattr__ = _look_up  # type: ignore[attr-defined]


def _operate(command: Command, *_: Any) -> NoReturn:
    raise TypeError(_told(command))


def _look_up(command: Command, attribute: str) -> NoReturn:
    if attribute in _BY_ITSELF:  # not set yet, so there is nothing to tell
        raise AttributeError(attribute)
    raise AttributeError(f"no {attribute!r} here: {_told(command)}", name=attribute, obj=command)


_BY_ITSELF = frozenset({"kind", "name", "position"})


def _told(command: Command) -> str:
    what = f"{command.kind} {command.name}".rstrip()
    return f"this is the Deferred of {what} at position {command.position}, not its result: await it first"
