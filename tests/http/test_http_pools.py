"""Builds, routing, backlogs and pools over the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from perdure._duration import DEFAULT_MAX_MS
from perdure._http.application import make_application
from perdure._http.serving import serving
from perdure.cli import routing
from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.pools import TopicBacklog
from perdure_runtime.ports import Ports, Routing
from tests.cli.dev_process import ENVIRONMENT, perdure
from tests.contracts.test_contract_records import changed, on_build

pytestmark = pytest.mark.asyncio
Ask = Callable[..., Awaitable[tuple[int, Any]]]


class Pulsar:
    """What the API asks of it."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.backlogs: list[TopicBacklog] = []

    async def backlog(self) -> Sequence[TopicBacklog]:
        return self.backlogs

    async def make(self, topics: Sequence[str]) -> None:
        self.made += topics


@asynccontextmanager
async def api(token: str = "") -> AsyncIterator[tuple[Ask, Ports, Pulsar, str]]:
    ports, pulsar = memory_ports(SystemClock()), Pulsar()
    application = make_application(ports, "default", token=token, backlog=pulsar.backlog, make_pools=pulsar.make)
    async with serving(application, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"

        async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            async with session.request(method, f"{url}/api/v1/namespaces/default{path}", json=body) as answer:
                return answer.status, await answer.json()

        yield ask, ports, pulsar, url


async def test_runs_are_told_by_build_with_those_that_are_open() -> None:
    async with api() as (ask, ports, _, _):
        statuses = ["running", "stuck", "paused", "failed", "completed", "continued-as-new"]
        changes = [on_build("1", changed(f"w{n}", 1, status)) for n, status in enumerate(statuses)]  # type: ignore[arg-type]
        await ports.read_model.apply([("default", each) for each in [*changes, changed("other", 1)]])
        status, told = await ask("GET", "/builds?name=order")
        assert status == 200
        assert told["builds"] == [
            {"name": "order", "build": None, "counts": {"running": 1}, "open": 1},
            {"name": "order", "build": "1", "counts": dict.fromkeys(sorted(statuses), 1), "open": 3},
        ]
        assert await ask("GET", "/builds") == (status, told)
        assert await ask("GET", "/builds?name=pack") == (200, {"builds": []})


async def test_routing_is_put_and_read() -> None:
    async with api() as (ask, ports, _, _):
        none = {"run_timeout_ms": None, "retention_ms": None}
        nothing = {"current": None, "ramping": None, "ramping_percent": 0, "defaults": none}
        assert await ask("GET", "/routing/order") == (200, nothing)
        defaults = {"run_timeout_ms": 5, "retention_ms": DEFAULT_MAX_MS}
        wanted = {"current": "1", "ramping": "2", "ramping_percent": 100, "defaults": defaults}
        for _ in range(2):
            assert await ask("PUT", "/routing/order", wanted) == (200, wanted)
        assert await ports.routing.get("default", "order") == Routing(
            current="1", ramping="2", ramping_percent=100,
            defaults=RunDefaults(run_timeout_ms=5, retention_ms=DEFAULT_MAX_MS),
        )  # fmt: skip
        assert await ask("GET", "/routing/order") == (200, wanted)
        for wrong in (
            {"ramping": "2", "ramping_percent": 101}, {"ramping_percent": 1}, {"current": ""}, {"build": "1"},
            {"ramping": "2", "ramping_percent": -1}, {"defaults": {"run_timeout_ms": 0}},
            {"defaults": {"retention_ms": DEFAULT_MAX_MS + 1}}, {"defaults": {"timeout": 5}}, {"defaults": None},
        ):  # fmt: skip
            assert (await ask("PUT", "/routing/order", wrong))[0] == 400
        assert (await ask("GET", "/routing/no%20name"))[0] == 400
        assert await ask("GET", "/routing/order") == (200, wanted)


async def test_backlogs_are_told_by_pool() -> None:
    async with api() as (ask, _, pulsar, _):
        pulsar.backlogs = [
            TopicBacklog(topic, number, 10 * number)
            for number, topic in enumerate([
                "task-run.Shop.pack", "task-run.Shop.pack.1.2", "task-run.ship", "task-run.ship.over",
                "task-run.ship.over.3", "workflow-run.order", "workflow-run.order.a/b",
            ])
        ]  # fmt: skip

        async def told(query: str) -> list[tuple[Any, ...]]:
            status, found = await ask("GET", f"/backlog{query}")
            assert status == 200
            return [
                tuple(each[key] for key in ("kind", "name", "build", "waiting", "in_flight"))
                for each in found["backlog"]
            ]

        workflows = [("workflow", "order", None, 5, 50), ("workflow", "order", "a/b", 6, 60)]
        pack = [("task", "Shop.pack", None, 0, 0), ("task", "Shop.pack", "1.2", 1, 10)]
        assert await told("?kind=workflow") == workflows
        assert (await told(""))[:2] == pack
        assert (await told(""))[-2:] == workflows
        assert await told("?kind=task&name=Shop.pack") == pack
        over = [("task", "ship.over", None, 3, 30), ("task", "ship.over", "3", 4, 40)]
        assert await told("?kind=task&name=ship.over") == over, "though ship is a name, too"
        assert await told("?kind=task&name=ship&name=ship.over&name=Shop.pack") == [
            *pack, ("task", "ship", None, 2, 20), *over,
        ], "each topic once"  # fmt: skip
        assert await told("?kind=workflow&name=Shop.pack") == []
        assert (await ask("GET", "/backlog?kind=worker"))[0] == 400


async def test_a_total_is_of_what_the_workers_of_a_build_may_do() -> None:
    async with api() as (ask, _, pulsar, _):
        topics = ["workflow-run.order", "workflow-run.order.a", "workflow-run.order.b", "workflow-run.pack"]
        pulsar.backlogs = [TopicBacklog(topic, 10**number, 2 * 10**number) for number, topic in enumerate(topics)]

        async def total(query: str) -> int:
            status, found = await ask("GET", f"/backlog?kind=workflow{query}")
            assert status == 200
            told: int = found["total"]
            return told

        assert await total("") == 3333
        assert await total("&name=order") == 333
        assert await total("&name=order&name=pack&build=b") == 3303
        assert await total("&name=order&build=new") == 3, "no topic is of that build yet"
        assert await total("&name=ship") == 0


async def test_pools_are_made_before_their_workers_come() -> None:
    async with api() as (ask, _, pulsar, _):
        made = ["task-run.pack", "task-run.pack.1", "task-run.ship", "task-run.ship.1"]
        body = {"kind": "task", "names": ["pack", "ship"], "build": "1"}
        assert await ask("POST", "/pools", body) == (200, {"topics": made})
        body = {"kind": "workflow", "names": ["order"]}
        assert await ask("POST", "/pools", body) == (200, {"topics": ["workflow-run.order"]})
        assert pulsar.made == [*made, "workflow-run.order"]
        for wrong in (
            {"kind": "task", "names": []}, {"kind": "worker", "names": ["pack"]}, {"names": ["pack"]},
            {"kind": "task", "names": ["no name"]},
            {"kind": "task", "names": ["pack"], "build": ""}, {"kind": "task", "names": ["pack"], "slots": 1},
        ):  # fmt: skip
            assert (await ask("POST", "/pools", wrong))[0] == 400


async def test_the_command_routes_through_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    async with api() as (_, _, _, url):
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", url)

        async def route(*options: str, code: int = 0) -> Any:
            return await asyncio.to_thread(perdure, "admin", "route", "order", *options, code=code)

        none = {"run_timeout_ms": None, "retention_ms": None}
        shown = {"workflow": "order", "current": None, "ramping": None, "ramping_percent": 0, "defaults": none}
        assert await route() == shown
        assert await route("--current", "1") == shown | {"current": "1"}
        ramping = {"ramping": "2", "ramping_percent": 10}
        assert await route("--ramping", "2", "--percent", "10") == shown | {"current": "1"} | ramping
        assert await route("--current", "2") == shown | {"current": "2"}
        declared = {"defaults": {"run_timeout_ms": 60_000, "retention_ms": 86_400_000}}
        assert await route("--retention", "86400", "--run-timeout", "60") == shown | {"current": "2"} | declared
        assert await route("--ramping", "3", "--percent", "5") == (
            shown | {"current": "2", "ramping": "3", "ramping_percent": 5} | declared
        )
        declared["defaults"]["run_timeout_ms"] = 1_000
        assert await route("--run-timeout", "1") == (
            shown | {"current": "2", "ramping": "3", "ramping_percent": 5} | declared
        ), "what is ramping stays"
        assert await route("--current", "") == shown | declared
        assert await route("--run-timeout", "0", "--retention", "0") == shown
        assert "--ramping and --percent go together" in await route("--percent", "10", code=2)
        monkeypatch.delitem(ENVIRONMENT, "PERDURE_URL")
        assert "PERDURE_URL says where the API is" in " ".join((await route(code=2)).split())


async def test_the_table_tells_defaults_in_seconds() -> None:
    def cells(**defaults: int | None) -> list[str]:
        shown = {"current": "1", "ramping": None, "ramping_percent": 0, "defaults": defaults}
        return [next(iter(column.cells)) for column in routing._table("order", shown).columns]

    assert cells(run_timeout_ms=1_500, retention_ms=DEFAULT_MAX_MS)[-2:] == ["1.5 s", "1576800000 s"]
    assert cells(run_timeout_ms=None, retention_ms=None) == ["order", "1", "", "0", "", ""]
