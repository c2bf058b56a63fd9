"""Looking at a run from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure._client.ends import VISIBLE_POLL_SECONDS, VISIBLE_SECONDS_MAX, history
from perdure._client.requests import Requests
from perdure.errors import RunNotFound
from perdure_schemas.events import Recorded
from perdure_schemas.messages import RunChanged, TaskChanged


class Looking:
    """The part of a run's handle that reads."""

    id: str
    run_id: str
    _exists: bool
    _requests: Requests

    async def describe(self) -> RunChanged:
        """Where it stands: status, what it waits for, its last error.

        Raises:
            RunNotFound: there is no such run.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (VISIBLE_SECONDS_MAX if self._exists else 0.0)
        while True:
            found = await self._requests.backend.get_run(self.id, self.run_id or None)
            if found is not None:
                return found
            if loop.time() >= until:
                raise RunNotFound(f"there is no run of workflow id {self.id!r}, or it is past its retention")
            await asyncio.sleep(VISIBLE_POLL_SECONDS)

    async def history(self) -> Sequence[Recorded]:
        """All its events.

        Raises:
            RunNotFound: there is no such run.
        """
        return await history(self._requests.backend, self.id, await self._one_run())

    async def tasks(self) -> Sequence[TaskChanged]:
        """Its tasks that took longer than a second, or failed: attempts so far, the last failure, the next attempt.

        Raises:
            RunNotFound: there is no such run.
        """
        return await self._requests.backend.list_tasks(self.id, await self._one_run())

    async def _one_run(self) -> str:
        return self.run_id or (await self.describe()).run_id
