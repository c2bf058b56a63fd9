"""Large values beside the messages, for workers and clients that have no way to the store: PUT, then refer; GET."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query, Request, Response

from perdure._http.blobs import GONE, Gone
from perdure._http.bodies import Problem, read_body
from perdure._http.paths import route
from perdure._payloads.blobs import Blobs
from perdure.convert import STORED_BYTES_MAX
from perdure_schemas.blobs import Blob, made_of

PATH = "/blobs/{blob_id}"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def add_blobs(application: FastAPI, blobs: Blobs) -> None:
    """The endpoints, on this store."""

    @application.put(route(PATH), summary="Store the value of a message to be sent.", response_class=Response)
    async def put(blob_id: str, request: Request) -> Response:
        """The answer is what a payload refers to it by."""
        if _ID.fullmatch(blob_id) is None:
            raise Problem(400, "the id of a blob has 1 to 64 of A-Z, a-z, 0-9, _ and -; choose a random one")
        data = await read_body(request, STORED_BYTES_MAX, "a blob")
        blob = await asyncio.to_thread(made_of, blob_id, data)
        await blobs.put(blob, data)
        return Response(msgspec.json.encode(blob), status_code=201, media_type="application/json")

    @application.get(route(PATH), summary="The bytes that a payload refers to.", response_class=Response)
    async def get(  # noqa: PLR0917 - the fields of a reference
        blob_id: str,
        size: Annotated[int, Query(ge=0)],
        sha256: str,
        workflow_id: str = "",
        run_id: str = "",
    ) -> Response:
        blob = Blob(id=blob_id, size=size, sha256=sha256, workflow_id=workflow_id, run_id=run_id)
        data = await blobs.get(blob)
        if data is None:
            return Response(msgspec.json.encode(Gone(True)), status_code=GONE, media_type="application/json")
        return Response(data, media_type="application/octet-stream")
