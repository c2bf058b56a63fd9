"""Requests to the API, repeated while it is being restarted."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from perdure._http.endpoints import NO_SUCH_PATH, PREFIX
from perdure.errors import PayloadTooLarge, PerdureError, RunNotFound, Unavailable

_TIMEOUT = aiohttp.ClientTimeout(total=70, connect=10)
_BAD_REQUEST = 400
_TOO_LARGE = 413
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_ERRORS_FROM = 500
_ANSWERS = frozenset({"error", "status", "outcome", "gone"})
"""What there is no such thing of: a refusal, the replies of engines, a value."""
_AWAY = frozenset({502, 503, 504})
"""A proxy without an API behind it, or an API whose engines cannot be reached."""
_PATIENCE_S = 30.0
"""An API that has answered once is asked again for so long: it is being restarted, which takes a pod 10 to 20 s."""
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Before it is asked again; the last one from then on. Each request may be repeated: it says who it is."""


class BadRequest(PerdureError, ValueError):
    """Something that was given is wrong; the text says which."""


class Caller:
    """Of one API."""

    def __init__(self, url: str, namespace: str, token: str) -> None:
        """`url`: where the API is."""
        self.base = url.rstrip("/") + PREFIX.format(namespace=quote(namespace))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None
        self._met = False
        """It has answered: the URL is right."""

    def open(self, client_id: str) -> None:
        """On the loop that will call."""
        self._session = aiohttp.ClientSession(
            headers={**self._headers, "User-Agent": f"perdure/{client_id}"},
            timeout=_TIMEOUT,
            connector=aiohttp.TCPConnector(limit=0),  # long polls would starve the other requests
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        parameters: dict[str, str] | None = None,
        body: bytes | None = None,
        key: str = "",
        kind: str = "application/json",
    ) -> tuple[int, bytes]:
        """Status and body of an answer that is one. `kind`: of the body.

        Raises:
            Unavailable: the API cannot be reached, or its engines cannot; of an API that has answered: for long. Or
                what answers is none.
            PayloadTooLarge: it said so, or a proxy in front of it did.
            RunNotFound: there is no such run; it says which.
            BadRequest: it refused what was asked as such.
            PerdureError: it refused the request for another reason.
        """
        headers = {"Content-Type": kind, **({"Idempotency-Key": key} if key else {})}
        status, data = await self._send_patiently(method, path, body=body, params=parameters, headers=headers)
        self._met = True
        told = _told(data) if status >= 400 else ""
        if status == _TOO_LARGE:
            raise PayloadTooLarge(told if _is_ours(data) else self._refused_on_the_way(body))
        if status >= _ERRORS_FROM:
            raise Unavailable(told or f"the API answered {status}")
        if status == _NOT_FOUND and (told == NO_SUCH_PATH or not _is_answer(data)):
            raise Unavailable(f"{self.base} is no API of Perdure (PERDURE_URL), though something answers there")
        if told and status == _NOT_FOUND:
            raise RunNotFound(told)
        if told and status == _BAD_REQUEST:
            raise BadRequest(told)
        if told:
            raise PerdureError(told if status != _UNAUTHORIZED else f"{told} (PERDURE_TOKEN)")
        return status, data

    def _refused_on_the_way(self, body: bytes | None) -> str:
        return (
            f"a proxy in front of the API at {self.base} refused a request of {len(body or b''):,} bytes: "
            "it must let 25 MB pass (nginx: client_max_body_size)"
        )

    async def _send_patiently(self, method: str, path: str, **what: Any) -> tuple[int, bytes]:
        """Again and again, as long as the API may be restarting.

        Raises:
            Unavailable: it did not come back.
        """
        deadline = time.monotonic() + (_PATIENCE_S if self._met else 0)
        for pause in itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1])):
            try:
                return await self._send(method, path, **what)
            except Unavailable:
                if time.monotonic() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("the pauses do not end")

    async def _send(self, method: str, path: str, *, body: bytes | None, **what: Any) -> tuple[int, bytes]:
        """Once.

        Raises:
            Unavailable: it did not arrive, or nobody knows whether it did.
        """
        assert self._session is not None, "the client is open"
        try:
            sent = None if body is None else io.BytesIO(body)  # in pieces: whole, a large one would hold the loop
            async with self._session.request(method, self.base + path, data=sent, **what) as response:
                status, data = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the API at {self.base} cannot be reached: {str(error) or repr(error)}") from error
        if status in _AWAY:
            raise Unavailable(_told(data) or f"the API at {self.base} answered {status}")
        return status, data


class _Problem(msgspec.Struct):
    """The body of a refusal, as the API writes it."""

    error: str


def _is_ours(data: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(data, type=_Problem))
    except msgspec.MsgspecError:
        return False


def _is_answer(data: bytes) -> bool:
    """Of a refusal by 404: whether an API of ours has written it."""
    try:
        return bool(_ANSWERS & msgspec.json.decode(data, type=dict[str, Any]).keys())
    except msgspec.MsgspecError:
        return False


def _told(data: bytes) -> str:
    """What an answer that is none of the engines' says."""
    try:
        decoded = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return data[:200].decode(errors="replace") or "no reason given"
    return str(decoded["error"]) if isinstance(decoded, dict) and "error" in decoded else ""
