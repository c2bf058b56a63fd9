"""The probes of workers, by HTTP to the pods."""

from __future__ import annotations

import aiohttp
import msgspec

from perdure_operator.desired import PROBE_PORT
from perdure_operator.facts import Work
from perdure_operator.ports import Unavailable

TIMEOUT_S = 3.0
"""A worker answers on its own event loop, in milliseconds unless that is stuck."""


class HttpWorkers:
    """As the port `Workers`."""

    def __init__(self, session: aiohttp.ClientSession, port: int = PROBE_PORT) -> None:
        self._session = session
        self._port = port

    async def work(self, ip: str) -> Work | None:
        try:
            async with self._session.get(self._url(ip), timeout=_TIMEOUT) as response:
                return msgspec.json.decode(await response.read(), type=Work) if response.ok else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):  # ValueError: msgspec's, too
            return None

    async def drain(self, ip: str, token: str) -> None:
        await self._tell(ip, "drain", token)

    async def resume(self, ip: str, token: str) -> None:
        await self._tell(ip, "resume", token)

    async def _tell(self, ip: str, verb: str, token: str) -> None:
        url = f"{self._url(ip)}/{verb}"
        try:
            async with self._session.post(
                url, headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT
            ) as response:
                if not response.ok:
                    raise Unavailable(f"POST {url}: {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: it cannot be told so
            raise Unavailable(f"POST {url}: {type(error).__name__} {error}".rstrip()) from error

    def _url(self, ip: str) -> str:
        host = f"[{ip}]" if ":" in ip else ip
        return f"http://{host}:{self._port}/load"


_TIMEOUT = aiohttp.ClientTimeout(TIMEOUT_S)
