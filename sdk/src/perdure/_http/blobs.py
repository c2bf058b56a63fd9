"""Large values of a cluster, by its API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from perdure._http.caller import Caller
from perdure.errors import PayloadTooLarge, PerdureError, RunNotFound, Unavailable
from perdure_schemas.blobs import Blob


class HttpBlobs:
    """As `Blobs`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def put(self, blob: Blob, data: bytes) -> None:
        await self._ask("PUT", blob, body=data, kind="application/octet-stream")

    async def get(self, blob: Blob) -> bytes | None:
        fields = {"size": str(blob.size), "sha256": blob.sha256}
        of_run = {"workflow_id": blob.workflow_id, "run_id": blob.run_id} if blob.run_id else {}
        try:
            return await self._ask("GET", blob, parameters={**fields, **of_run})
        except RunNotFound:
            return None

    async def _ask(self, method: str, blob: Blob, **what: Any) -> bytes:
        """Of a refusal, say of the token, somebody has to mend the cause, here or there: it is as if nobody answered.

        Raises:
            Unavailable: it is worth while to try again.
            PayloadTooLarge, RunNotFound: it is not.
        """
        try:
            _, data = await self._caller.request(method, f"/blobs/{quote(blob.id, safe='')}", **what)
        except (PayloadTooLarge, RunNotFound, Unavailable):
            raise
        except PerdureError as error:
            raise Unavailable(f"the API refuses large values: {error}") from error
        return data
