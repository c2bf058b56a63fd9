"""Mistakes of a caller are told as such, before anything is sent, and name what is wrong."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from perdure import Client, PerdureError, Registry, RunFilter, Worker, task, workflow
from perdure.signature import location


@task
async def nothing() -> None: ...


@workflow
async def hello() -> None:
    await nothing()


CALLS: dict[str, tuple[Callable[[Any], Awaitable[object]], str]] = {
    "start": (lambda client: client.start(hello, id=3), "id must be a str, not 3"),
    "run": (lambda client: client.run("nothing", id=3), "id must be a str, not 3"),
    "start of a task": (
        lambda client: client.start(nothing, id="t"),
        r"is a task, not a workflow: use client.run\(noth",
    ),
    "execute of a task": (lambda client: client.execute(nothing), "nothing is a task, not a workflow"),
    "edit at a number": (lambda client: client.handle("h").resume(edits={4: [1]}), "position must be a str, .* not 4"),
    "skip at a number": (lambda client: client.handle("h").resume(skips={4: 1}), "position must be a str, .* not 4"),
    "reset to a number": (lambda client: client.handle("h").reset(4), "position must be a str, .* not 4"),
    "edit by a str": (lambda client: client.handle("h").resume(edits={"4": "x"}), "edit 4: .* must be a list.*'x'"),
    "edit by bytes": (lambda client: client.handle("h").reset("4", edits={"4": b"x"}), "edit 4: .* must be a list"),
    "edit by a value": (lambda client: client.handle("h").resume(edits={"4": 5}), "edit 4: .* must be a list.* 5"),
    "edits in a list": (lambda client: client.handle("h").resume(edits=[1]), r"edits must be a dict .* not \[1\]"),
    "skips in a list": (lambda client: client.handle("h").reset("0", skips=[1]), "skips must be a dict"),
    "list by a str": (lambda client: client.list("failed"), "where must be a RunFilter, .* not 'failed'"),
    "list from a number": (lambda client: client.list(cursor=3), "cursor must be the str of .* not 3"),
    "list up to a str": (lambda client: client.list(limit="a"), "limit must be an int, not 'a'"),
    "result after a str": (lambda client: client.handle("h").result(timeout="a"), "timeout must be a number of .* 'a'"),
    "result of a task": (lambda client: client.task("h").result(timeout="a"), "timeout must be a number of .* 'a'"),
    "attributes in a list": (lambda client: client.start(hello, attributes=["a"]), "attributes must be a dict"),
}
FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "attribute": ({"attribute": "x"}, "attribute must be a pair of str, .* not 'x'"),
    "attribute of numbers": ({"attribute": ("x", 1)}, "attribute must be a pair of str"),
    "start": ({"started_from": datetime(2030, 1, 1, tzinfo=UTC)}, "started_from must be an int, epoch milliseconds"),
    "name": ({"name": 3}, "name must be a str, not 3"),
}


@pytest.mark.parametrize("mistake", FILTERS)
def test_a_condition_of_another_type_is_a_type_error(mistake: str) -> None:
    given, told = FILTERS[mistake]
    with pytest.raises(TypeError, match=told):
        RunFilter(**given)


@pytest.mark.asyncio
async def test_a_wait_for_what_is_no_moment_is_a_value_error() -> None:
    until: Any = "done"
    async with asyncio.timeout(60), Client.embedded(hello, nothing) as client:
        with pytest.raises(ValueError, match="wait is one of 'accepted', 'sent', not 'done'"):
            await client.start(hello, wait=until)


@pytest.mark.parametrize("target", ["nowhere.sqlite", "http://127.0.0.1:1"])
@pytest.mark.asyncio
async def test_a_client_that_is_not_open_says_so(target: str) -> None:
    client = Client.connect(target)
    for call in (client.list, client.counts):
        with pytest.raises(PerdureError, match=r"the client is not open: use it inside `async with"):
            await call()


def test_a_blocking_client_that_is_not_open_says_so() -> None:
    told = r"the blocking client is not open: use it inside `with"
    client = Client.embedded(hello, nothing).sync
    calls: list[Callable[[], object]] = [client.list, lambda: client.handle("h"), lambda: client.start(hello)]
    for call in calls:
        with pytest.raises(PerdureError, match=told):
            call()
    with client as opened:
        run = opened.start(hello)
        run.result()
    calls = [opened.list, run.result, run.describe]
    for call in calls:
        with pytest.raises(PerdureError, match=told):
            call()


@pytest.mark.parametrize("mistake", CALLS)
@pytest.mark.asyncio
async def test_what_is_of_another_type_is_a_type_error(mistake: str) -> None:
    call, told = CALLS[mistake]
    async with asyncio.timeout(60), Client.embedded(hello, nothing) as client:
        await (await client.start(hello, id="h")).result()
        with pytest.raises(TypeError, match=told):
            await call(client)


@pytest.mark.asyncio
async def test_handles_are_of_ids_that_are_text() -> None:
    number: Any = 3
    async with asyncio.timeout(60), Client.embedded(hello, nothing) as client:
        for make in (client.handle, client.task):
            with pytest.raises(TypeError, match="id must be a str, not 3"):
                make(number)


@pytest.mark.parametrize("target", ["htp://127.0.0.1:8420", "ftp://a", "pulsar://a:6650"])
def test_a_client_of_an_unknown_scheme_is_a_value_error(target: str) -> None:
    with pytest.raises(ValueError, match=r"unknown scheme in .*: a client connects to http://"):
        Client.connect(target)


@pytest.mark.parametrize("target", ["htp://127.0.0.1:8420", "http://127.0.0.1:8420"])
def test_a_worker_of_an_unknown_scheme_is_a_value_error(target: str) -> None:
    with pytest.raises(ValueError, match=r"unknown scheme in .*: a worker connects to pulsar://"):
        Worker.connect(target, Registry([hello, nothing]))


class Named:
    """A class of this file."""

    def method(self) -> None:
        """Of a class that is told where it is."""


def test_a_class_is_located_without_its_file_being_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 may fail to, when a finalizer prints a traceback meanwhile."""
    line = inspect.getsourcelines(Named)[1]
    monkeypatch.setattr(ast, "parse", lambda *_, **__: pytest.fail("it is parsed"))
    assert location(Named) == f"{__file__}:{line}"
    assert location(type("Made", (), {"__module__": __name__})) == f"{__file__}:0"
