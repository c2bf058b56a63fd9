"""Looking at a run from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure._client.ends import VISIBLE_POLL_SECONDS, VISIBLE_SECONDS_MAX, history, latest
from perdure._client.requests import Requests
from perdure._client.unknown import WAIT_SECONDS_MAX, unserved
from perdure.errors import PerdureError, Refused, RunNotFound
from perdure_runtime.errors import StorageUnavailable
from perdure_schemas.events import Recorded
from perdure_schemas.messages import RunChanged, TaskChanged

GLANCE_SECONDS_MAX = 1.0
"""For what an error tells besides: it is late by no more."""


class Looking:
    """The part of a run's handle that reads."""

    id: str
    run_id: str
    _exists: bool
    _first_run_id: str
    """Of the chain of continue-as-new that the handle means; empty: it means one run, or the current one."""
    _requests: Requests

    async def describe(self) -> RunChanged:
        """Where it stands: status, what it waits for, its last error.

        Raises:
            RunNotFound: there is no such run.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (VISIBLE_SECONDS_MAX if self._exists else 0.0)
        while True:
            found = await self._found()
            if found is not None:
                return found
            if loop.time() >= until:
                raise await self._told(self._none())
            await asyncio.sleep(VISIBLE_POLL_SECONDS)

    async def _found(self) -> RunChanged | None:
        backend = self._requests.backend
        found = await backend.get_run(self.id, self.run_id or None)
        if self._first_run_id and (found is None or found.status == "continued-as-new"):
            return await latest(backend, self.id, self._first_run_id) or found
        return found

    def _none(self) -> RunNotFound:
        return RunNotFound(f"there is no run of workflow id {self.id!r}, or it is past its retention")

    async def _told(self, error: PerdureError) -> PerdureError:
        """The error itself; or, of a run that is not found, that another one has its workflow id now."""
        if not self.run_id or not isinstance(error, RunNotFound):
            return error
        try:
            current = await self._requests.backend.get_run(self.id, None)
            if current is None or current.run_id == self.run_id:
                return error
            if self._first_run_id and await latest(self._requests.backend, self.id, self._first_run_id):
                return error
        except (PerdureError, StorageUnavailable):  # it was for a better sentence
            return error
        return RunNotFound(
            f"run {self.run_id} of workflow id {self.id!r} is not in force: "
            f"another run has the id now, {current.run_id}"
        )

    async def history(self) -> Sequence[Recorded]:
        """All its events.

        Raises:
            RunNotFound: there is no such run.
        """
        events = await history(self._requests.backend, self.id, await self._recorded())
        if not events:
            raise await self._told(self._none())
        return events

    async def tasks(self) -> Sequence[TaskChanged]:
        """Its tasks that took longer than a second, or failed: attempts so far, the last failure, the next attempt.

        Raises:
            RunNotFound: there is no such run.
        """
        return await self._requests.backend.list_tasks(self.id, (await self.describe()).run_id)

    async def _standing(self) -> RunChanged | None:
        """Where it stands, if that can be had at once."""
        try:
            async with asyncio.timeout(GLANCE_SECONDS_MAX):
                return await self.describe()
        except (PerdureError, TimeoutError):
            return None

    async def _silence(self) -> str:
        """Why its code does not answer, as far as that is known."""
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                announced = await self._requests.backend.announced()
                found = unserved(announced, (await self.describe()).name) if announced is not None else ""
        except (PerdureError, StorageUnavailable, TimeoutError):
            found = ""
        return found or "is a worker running?"

    async def _recorded(self) -> str:
        """The run whose history is meant. That is there before the read model knows of the run."""
        if not self.run_id:
            return (await self.describe()).run_id
        found = await self._found() if self._first_run_id else None
        return self.run_id if found is None else found.run_id

    async def _addressed(self) -> str:
        """The run id of messages to the run: the engine takes that of the first of a chain for all of it.

        Raises:
            Refused: the handle means one very run, which others have followed.
        """
        if self.run_id and not self._first_run_id:
            found = await self._requests.backend.get_run(self.id, self.run_id)
            if found is not None and found.status == "continued-as-new":
                raise Refused(
                    f"run {self.run_id} of {self.id!r} has continued as a new one; "
                    f"for the current run take the handle of {self.id!r} without a run id"
                )
        return self._first_run_id or self.run_id
