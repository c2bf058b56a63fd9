"""Bodies of requests, of which no more is read than may be taken, and what callers are told instead of an answer."""

from __future__ import annotations

from fastapi import Request

TOO_LARGE = 413


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
