"""Ids in paths: whatever an id may hold can be reached, and nothing else is by way of it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from perdure import Client
from tests.cli.dev_process import ENVIRONMENT, perdure
from tests.http.test_http_api import Api, Order, hello, with_api

IDS = ("a/b", "/", "a/b/result", "..%2Fcounts", "../../other/runs", "a%2Fb", "a b?c#d", "é/ü", "a+b;c", "./a")


async def raw(url: str, request: str) -> tuple[int, str]:
    """The answer to this very path, which no client has tidied up."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer.rpartition("\r\n\r\n")[2]


@pytest.mark.parametrize("id", IDS)
def test_every_endpoint_of_a_run_finds_it(id: str) -> None:
    async def work(api: Api, url: str) -> None:
        async with Client.connect(url) as client:
            run = await client.start(Order, id=id)
            await run.signal(Order.go, "a")
            assert await run.update(Order.add, "b") == 2
            assert await run.query(Order.status) == ["a", "b"]
            assert (await run.describe()).workflow_id == id
            assert len(await run.history()) > 1
            assert list(await run.tasks()) == []
            await run.pause()
            await run.unpause()
            await run.signal(Order.go, "c")
            assert await client.handle(id).result() == "abc"
        path = f"/api/v1/namespaces/default/runs/{quote(id, safe='')}/result"
        status, told = await raw(url, path)
        assert (status, '"result":"abc"' in told) == (200, True)

    with_api(work)


def test_a_task_whose_id_has_a_slash_is_found() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await api.post("/tasks", {"name": "increase", "args": [1], "task_id": "a/b"}))[1]["result"] == 2
        prefix = "/api/v1/namespaces/default"
        status, told = await raw(url, f"{prefix}/tasks/a%2Fb/result")
        assert (status, '"task_id":"a/b"' in told) == (200, True)

    with_api(work)


@pytest.mark.parametrize("id", [".", ".."])
def test_an_id_that_means_another_path_is_refused_at_start(id: str) -> None:
    async def work(api: Api, url: str) -> None:
        status, answer = await api.post("/runs", {"name": "hello", "args": [1], "workflow_id": id})
        assert status == 400
        assert "no URL can name it" in answer["error"]
        async with Client.connect(url) as client:
            with pytest.raises(ValueError, match="no URL can name it"):
                await client.start(hello, 1, id=id)

    with_api(work)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/other/counts",
        "/api/v1/namespaces/default%2Fcounts",
        "/api/v1/namespaces%2Fdefault%2Fcounts",
        "/api/v1%2Fnamespaces/default/counts",
        "/api/v1/namespaces/x%2F..%2Fdefault/counts",
        "/api/v1/namespaces/other%2F/counts",
        "//api/v1/namespaces/default/counts",
        "/api/v1/namespaces/default/runs/h%2Fresult/../../counts",
    ],
)
def test_an_escaped_slash_divides_nothing(path: str) -> None:
    async def work(api: Api, url: str) -> None:
        assert (await raw(url, path))[0] == 404

    with_api(work)


def test_no_path_gets_by_without_the_token() -> None:
    async def work(api: Api, url: str) -> None:
        for path in (
            "/api/v1/namespaces/default/counts", "/api/v1/namespaces/default/runs/a%2Fb", "/api%2Fv1/openapi.json",
            "/api/v1/openapi.json", "/docs", "/", "/%2F", "//", "/%", "/api/v1/namespaces/default/%63ounts",
        ):  # fmt: skip
            assert (await raw(url, path))[0] == 401, path

    with_api(work, token="secret")


def test_an_escaped_name_of_the_namespace_is_the_name() -> None:
    async def work(api: Api, url: str) -> None:
        assert (await raw(url, "/api/v1/namespaces/%64efault/counts"))[0] == 200

    with_api(work)


def test_commands_at_a_url_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(api: Api, url: str) -> None:
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", url)

        async def command(*arguments: str) -> Any:
            return await asyncio.to_thread(perdure, *arguments)

        assert (await command("start", "Order", "--id", "a/b"))["id"] == "a/b"
        await command("signal", "a/b", "go", '"x"')
        assert await command("query", "a/b", "status") == ["x"]
        assert await command("update", "a/b", "add", '"y"') == 2
        assert (await command("show", "a/b"))["id"] == "a/b"
        await command("cancel", "a/b")

    with_api(work)
