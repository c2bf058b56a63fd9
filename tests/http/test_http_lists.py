"""Lists over HTTP: what cannot be asked for is refused in words, by the API and by its client alike."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from perdure import Client
from tests.http.test_http_api import Api, hello, with_api

NO_CURSORS = ("garbage", "AAAA", "")


def test_a_cursor_of_no_page_and_an_unknown_status_are_bad_requests() -> None:
    async def work(api: Api, url: str) -> None:
        for cursor in NO_CURSORS:
            refused = (400, {"error": f"{cursor!r} is the cursor of no page"})
            assert await api.get(f"/runs?cursor={quote(cursor)}") == refused
        status, told = await api.get("/runs?status=bogus")
        assert status == 400
        assert "one of running, paused, stuck" in told["error"]
        assert (await api.get("/runs?status="))[0] == 200

    with_api(work)


def test_the_client_raises_value_errors() -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            for number in range(2):
                await client.execute(hello, number)
            for cursor in NO_CURSORS:
                with pytest.raises(ValueError, match="is the cursor of no page"):
                    await client.list(cursor=cursor)
            with pytest.raises(ValueError, match="limit"):
                await client.list(limit=1_000_000)
            first = await client.list(limit=1)
            assert first.runs != (await client.list(limit=1, cursor=first.cursor)).runs

    with_api(work)
