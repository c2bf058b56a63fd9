"""The API of one Perdure, by HTTP. What all pools of a connection ask is asked once for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from perdure_operator.facts import Failed, Open, Routing, RunDefaults, Waiting
from perdure_operator.ports import Silent, Unavailable

T = TypeVar("T")

KEPT_S = 2.0
"""As long as the API keeps one look at the broker."""
TIMEOUT_S = 10.0
"""The API asks the broker within this time, or says that it cannot."""
_BACKLOG = "/backlog"
_PROBLEM_MAX = 200


class _Backlog(Struct):
    backlog: list[Waiting]


class _Builds(Struct):
    builds: list[Open]


class _Runs(Struct):
    runs: list[Failed]


class _Problem(Struct):
    error: str


class HttpPerdure:
    """As the port `Perdure`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, namespace: str, token: str) -> None:
        self._session = session
        self._base = f"{url}/api/v1/namespaces/{quote(namespace, safe='')}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._backlog = _Shared[Sequence[Waiting]](self._ask_backlog)
        self._builds = _Shared[Sequence[Open]](self._ask_builds)
        self.silence = ""

    async def backlog(self) -> Sequence[Waiting]:
        return await self._backlog.get()

    async def builds(self) -> Sequence[Open]:
        return await self._builds.get()

    async def failed(self, name: str, limit: int) -> Sequence[Failed]:
        found: list[Failed] = []
        for status in ("failed", "stuck"):
            query = {"name": name, "status": status, "limit": str(limit)}
            found += (await self._ask("GET", "/runs", _Runs, query=query)).runs
        return sorted(found, key=lambda run: run.changed_at, reverse=True)[:limit]

    async def routing(self, workflow: str) -> Routing:
        return await self._ask("GET", f"/routing/{quote(workflow, safe='')}", Routing)

    async def route(self, workflow: str, routing: Routing) -> None:
        body = msgspec.to_builtins(routing)
        if routing.defaults == RunDefaults():
            del body["defaults"]  # none as well, and an API of a release that knows of none refuses the field
        await self._ask("PUT", f"/routing/{quote(workflow, safe='')}", object, body=body)

    async def ensure(self, kind: Literal["task", "workflow"], names: Sequence[str], build: str) -> None:
        await self._ask("POST", "/pools", object, body={"kind": kind, "names": list(names), "build": build})

    async def _ask_backlog(self) -> Sequence[Waiting]:
        try:
            found = (await self._ask("GET", _BACKLOG, _Backlog)).backlog
        except Unavailable as error:
            self.silence = str(error) if isinstance(error, Silent) else ""
            raise
        self.silence = ""
        return found

    async def _ask_builds(self) -> Sequence[Open]:
        return (await self._ask("GET", "/builds", _Builds)).builds

    async def _ask(
        self, method: str, path: str, kind: type[T], *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> T:
        if self.silence and path != _BACKLOG:  # else all that is looked at waits here, and others' pools behind it
            raise Silent(self.silence)
        url = self._base + path
        try:
            async with self._session.request(
                method, url, params=query, json=body, headers=self._headers, timeout=aiohttp.ClientTimeout(TIMEOUT_S)
            ) as response:
                data = await response.read()
                if not response.ok:
                    raise Unavailable(f"{method} {url}: {response.status} {_said(data)}".rstrip())
                return msgspec.json.decode(data or b"null", type=kind)
        except TimeoutError as error:
            raise Silent(f"{method} {url}: no answer within {TIMEOUT_S:g} s") from error
        except msgspec.DecodeError as error:
            raise Unavailable(f"{method} {url}: not the answer that was expected: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: it cannot be asked so
            raise Unavailable(f"{method} {url}: {type(error).__name__} {error}".rstrip()) from error


def _said(data: bytes) -> str:
    """What Perdure's API says is wrong, and of what others answer nothing.

    Whoever may write Connections chooses whom the operator asks, and reads in a status what it was told.
    """
    try:
        return msgspec.json.decode(data, type=_Problem).error[:_PROBLEM_MAX]
    except ValueError:  # of msgspec
        return ""


class _Shared(Generic[T]):
    """One question for all who ask within a moment; a refusal is shared as well."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asked: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        now = asyncio.get_running_loop().time()
        if self._asked is None or (self._asked.done() and now >= self._until):
            self._asked = asyncio.ensure_future(self._ask())
            self._asked.add_done_callback(self._answered)
        return await asyncio.shield(self._asked)

    def _answered(self, asked: asyncio.Task[T]) -> None:
        self._until = asyncio.get_running_loop().time() + KEPT_S
        if not asked.cancelled():
            asked.exception()  # whoever waits is told; nobody has to
