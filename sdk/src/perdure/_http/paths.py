"""Paths as they were sent. A `/` of an id is `%2F` in them, and no `/` once a path is decoded as a whole.

So routes and the guard see the same escaped path, of which each part is decoded by itself.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

from perdure._http.endpoints import PREFIX

_SEGMENT = "segment"
_NAMESPACES = PREFIX.partition("{")[0]


class _Segment(Convertor[str]):
    """A part between two `/`, decoded after it was found."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor(_SEGMENT, _Segment())


def route(path: str) -> str:
    """A path below the prefix, in the form for routes."""
    return re.sub(r"{(\w+)}", rf"{{\1:{_SEGMENT}}}", PREFIX + path)


def as_sent(scope: Scope) -> Scope:
    """The request, with its path still escaped. Where the server does not tell how it came, every `%2F` divides."""
    raw = scope.get("raw_path")
    return {**scope, "path": quote(scope["path"]) if raw is None else raw.decode("latin-1")}


def namespace_of(path: str) -> str | None:
    """The one that a path, as it was sent, is about; `None`: it is about none."""
    if not path.startswith(_NAMESPACES):
        return None
    return unquote(path.removeprefix(_NAMESPACES).partition("/")[0])
