"""Messages with every payload in them encoded or decoded. What has none is passed on as the object it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from msgspec import Struct, structs

from perdure.convert import Unreadable
from perdure.errors import PayloadUnreadable
from perdure.payloads import Payloads
from perdure_schemas.common import Command, Payload

T = TypeVar("T")

_IN_THE_OPEN = "attributes"
"""Fields and commands of this name carry search attributes: read models compare them, so they are never encrypted."""
_ABOUT_DIGESTS = "digest"


class Edge:
    """Between a process and everything outside it, for one namespace."""

    def __init__(self, payloads: Payloads, namespace: str) -> None:
        self._payloads = payloads
        self._namespace = namespace

    def outgoing(self, value: T) -> T:
        """As it may be seen outside."""
        changed: T = _changed(value, self._encode, self._seal_digest if self._payloads.current else None)
        return changed

    def incoming(self, value: T) -> T:
        """With plain payloads. One that cannot be read says so where it is used: the rest of a message may matter."""
        changed: T = _changed(value, self._decode, self._unseal_digest)
        return changed

    def _encode(self, payload: Payload) -> Payload:
        return self._payloads.encode(payload, self._namespace)

    def _decode(self, payload: Payload) -> Payload:
        try:
            return self._payloads.decode(payload, self._namespace)
        except PayloadUnreadable as error:
            return Unreadable(payload.encoding, payload.data, str(error))

    def _seal_digest(self, digest: str) -> str:
        """A digest of few possible arguments would tell which it is of."""
        if not digest or "." in digest:
            return digest
        sealed = self._payloads.seal(digest.encode(), f"{self._namespace}\n{_ABOUT_DIGESTS}")
        return f".{base64.b64encode(sealed).decode()}"

    def _unseal_digest(self, digest: str) -> str:
        if not digest.startswith("."):
            return digest
        try:
            sealed = base64.b64decode(digest[1:], validate=True)
            return self._payloads.unseal(sealed, f"{self._namespace}\n{_ABOUT_DIGESTS}").decode()
        except (PayloadUnreadable, binascii.Error, UnicodeDecodeError):
            return digest  # nothing equals it, and what it is of cannot be read either


def _changed(value: Any, code: Callable[[Payload], Payload], code_digest: Callable[[str], str] | None) -> Any:
    if isinstance(value, Payload):
        return code(value)
    if isinstance(value, Struct):
        return _changed_struct(value, code, code_digest)
    if isinstance(value, list | tuple):
        items = [_changed(item, code, code_digest) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return value


def _changed_struct(
    value: Struct, code: Callable[[Payload], Payload], code_digest: Callable[[str], str] | None
) -> Struct:
    in_the_open = isinstance(value, Command) and value.kind == _IN_THE_OPEN
    changes: dict[str, Any] = {}
    for name in _holders(type(value)):
        old = getattr(value, name)
        if old is None or (in_the_open and name == "args"):
            continue
        new = _changed(old, code, code_digest)
        if new is not old:
            changes[name] = new
    if code_digest is not None and isinstance(value, Command):
        changes["digest"] = code_digest(value.digest)
    return structs.replace(value, **changes) if changes else value


@cache
def _holders(kind: type[Struct]) -> tuple[str, ...]:
    """The fields that hold payloads, themselves or somewhere below."""
    hints = get_type_hints(kind)
    return tuple(n for n in kind.__struct_fields__ if n != _IN_THE_OPEN and _holds(hints[n], frozenset({kind})))


def _holds(hint: Any, open: frozenset[type]) -> bool:
    if isinstance(hint, type) and issubclass(hint, Struct):
        if hint in {Payload, Command}:
            return True
        return hint in open or any(  # a cause within a cause
            _holds(each, open | {hint}) for name, each in get_type_hints(hint).items() if name != _IN_THE_OPEN
        )
    return any(_holds(argument, open) for argument in get_args(hint))
