"""From the name of a `Connection` to the API it leads to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from perdure_operator.ports import Forbidden, Kubernetes, Perdure
from perdure_operator.resources import Connection, Rejected, SecretKey, connection_of

KEPT_S = 5.0
"""A pool is looked at every few seconds, and there may be hundreds on one connection: it is read for all of them."""


@dataclass(frozen=True, slots=True)
class Link:
    """A connection that can be used."""

    connection: Connection
    token: str
    """What the API and the probes of its workers want to be shown."""
    perdure: Perdure


Open = Callable[[str, str, str], Perdure]
"""An API by URL, namespace and token."""


class Connections:
    """Reads connections and their secrets, and keeps one client per API."""

    def __init__(self, kubernetes: Kubernetes, open_api: Open, now: Callable[[], float]) -> None:
        self._kubernetes = kubernetes
        self._open_api = open_api
        self._now = now
        self._apis: dict[tuple[str, str, str], Perdure] = {}
        self._kept: dict[tuple[str, str], tuple[float, Link]] = {}

    async def link(self, namespace: str, name: str) -> Link:
        """Raises Rejected if there is none, or something is missing of it; Unavailable."""
        until, kept = self._kept.get((namespace, name), (0.0, None))
        if kept is not None and self._now() < until:
            return kept
        self._kept.pop((namespace, name), None)
        item = await self._kubernetes.get("Connection", namespace, name)
        if item is None:
            raise Rejected("ConnectionNotFound", f"there is no Connection {name!r} in namespace {namespace!r}")
        connection = connection_of(item)
        token = await self._secret(namespace, connection.api.token_secret)
        identity = (connection.api.url.rstrip("/"), connection.namespace, token)
        if identity not in self._apis:
            self._apis[identity] = self._open_api(*identity)
        link = Link(connection, token, self._apis[identity])
        self._kept[namespace, name] = self._now() + KEPT_S, link
        return link

    def forget(self, namespace: str, name: str) -> None:
        """Read it again: it was changed."""
        self._kept.pop((namespace, name), None)

    async def _secret(self, namespace: str, key: SecretKey) -> str:
        try:
            item = await self._kubernetes.get("Secret", namespace, key.name)
        except Forbidden as error:
            raise Rejected(
                "SecretForbidden",
                f"the operator lacks the right to get Secret {key.name!r} in namespace {namespace!r}: name it in the"
                f" chart's operator.secretNames, or bind a Role that lets it ({error})",
            ) from error
        if item is None:
            raise Rejected("SecretNotFound", f"there is no Secret {key.name!r} in namespace {namespace!r}")
        try:
            token = base64.b64decode((item.get("data") or {})[key.key], validate=True).decode().strip()
        except (KeyError, binascii.Error, UnicodeDecodeError):
            raise Rejected("SecretNotFound", f"Secret {key.name!r} has no text under key {key.key!r}") from None
        if not token.isprintable():
            raise Rejected(
                "ConnectionInvalid",
                f"Secret {key.name!r} has more than a token under key {key.key!r}: it must be one line without control"
                " characters, since it is shown in a header of HTTP",
            )
        return token
