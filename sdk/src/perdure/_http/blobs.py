"""Large values of a cluster, by its API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from perdure._http.caller import Caller
from perdure.errors import PayloadTooLarge, PerdureError, Unavailable
from perdure_schemas.blobs import Blob

STORED = 201
FOUND = 200
GONE = 404


class Gone(msgspec.Struct, frozen=True):
    """The body of a 404 that says so of a blob: any other 404 is of a proxy, or of an API of something else."""

    gone: bool


class HttpBlobs:
    """As `Blobs`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def put(self, blob: Blob, data: bytes) -> None:
        status, _ = await self._ask("PUT", blob, body=data, kind="application/octet-stream")
        if status != STORED:
            raise self._refused(f"it answers {status}")

    async def get(self, blob: Blob) -> bytes | None:
        fields = {"size": str(blob.size), "sha256": blob.sha256}
        of_run = {"workflow_id": blob.workflow_id, "run_id": blob.run_id} if blob.run_id else {}
        status, data = await self._ask("GET", blob, parameters={**fields, **of_run})
        if status == FOUND:
            return data
        if status == GONE and _says_gone(data):
            return None
        raise self._refused(f"it answers {status}")

    async def _ask(self, method: str, blob: Blob, **what: Any) -> tuple[int, bytes]:
        """Of a refusal, say of the token, somebody has to mend the cause, here or there: it is as if nobody answered.
        So it is where nothing is known of blobs: the address is another's, or a proxy has lost the API for a while.

        Raises:
            Unavailable: it is worth while to try again.
            PayloadTooLarge: it is not.
        """
        try:
            return await self._caller.request(method, f"/blobs/{quote(blob.id, safe='')}", **what)
        except (PayloadTooLarge, Unavailable):
            raise
        except PerdureError as error:
            raise self._refused(str(error)) from error

    def _refused(self, why: str) -> Unavailable:
        return Unavailable(f"the API at {self._caller.base} (PERDURE_URL) refuses large values: {why}")


def _says_gone(data: bytes) -> bool:
    try:
        return msgspec.json.decode(data, type=Gone).gone
    except msgspec.MsgspecError:
        return False
