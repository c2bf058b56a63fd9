"""Bodies of requests, of which no more is read than may be taken, and what callers are told instead of an answer."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request

from perdure._http.forms import MalformedJson

TOO_LARGE = 413
BODY_MAX_BYTES = 24 * 1024 * 1024
"""A value has at most 16 MB, and a third more as base64, in which clients send what they have encrypted."""


class Problem(Exception):
    """What the caller is told, with the status code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(request: Request, bytes_max: int, what: str) -> bytes:
    """All of it. One that says beforehand that it is too large is not read at all.

    Raises:
        Problem: it is too large.
    """
    announced = request.headers.get("content-length", "")
    data = bytearray()
    if not (announced.isdecimal() and int(announced) > bytes_max):
        async for chunk in request.stream():
            data += chunk
            if len(data) > bytes_max:
                break
        else:
            return bytes(data)
    raise Problem(TOO_LARGE, f"{what} has at most {bytes_max:,} bytes")


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that is the body; no body is an empty one.

    Raises:
        Problem, MalformedJson: it is too large, or none.
    """
    data = await read_body(request, BODY_MAX_BYTES, "a request")
    try:
        given = msgspec.json.decode(data) if data else {}
    except msgspec.DecodeError as error:
        raise MalformedJson(f"no JSON: {error}") from error
    if not isinstance(given, dict):
        raise MalformedJson("a JSON object is expected")
    return given
