"""Builds and pools of workers: what the operator, and who does its work by hand, asks for."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import msgspec
from fastapi import FastAPI, Query, Request, Response

from perdure._http.bodies import read_object
from perdure._http.forms import MalformedJson, of_plain, to_json
from perdure._http.paths import route as at
from perdure._http.pool_forms import PoolForm, RoutingForm
from perdure._names import is_name
from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.pools import Backlog, Kind, MakePools, by_pool, topics_of
from perdure_runtime.ports import BuildCounts, Ports, Routing
from perdure_schemas.events import EndStatus

_ENDED = frozenset(get_args(EndStatus))


def add_pools(
    application: FastAPI, ports: Ports, namespace: str, *, backlog: Backlog | None, make_pools: MakePools | None
) -> None:
    @application.get(at("/backlog"), summary="What waits for workers and what they have.", response_class=Response)
    async def waiting(
        kind: Kind | None = None, name: Annotated[list[str] | None, Query()] = None, build: str | None = None
    ) -> Response:
        """`build`: what this one may do, what is for any build as well. `total`: for scalers that read one number."""
        looked = [] if backlog is None else await backlog()
        found = [each for each in by_pool(looked, kind, name or ()) if build is None or each.build in (None, build)]
        return _json({"backlog": found, "total": sum(each.waiting + each.in_flight for each in found)})

    @application.get(at("/builds"), summary="Runs per name, build and status.", response_class=Response)
    async def builds(name: str | None = None) -> Response:
        found = await ports.read_model.builds(namespace)
        return _json({"builds": [_with_open(each) for each in found if name in (None, each.name)]})

    @application.get(at("/routing/{workflow}"), summary="What new runs get.", response_class=Response)
    async def routing(workflow: str) -> Response:
        return _json(await ports.routing.get(namespace, _name(workflow)))

    @application.put(at("/routing/{workflow}"), summary="Say what new runs get.", response_class=Response)
    async def route(workflow: str, request: Request) -> Response:
        form: RoutingForm = of_plain(RoutingForm, await read_object(request))
        if form.ramping is None and form.ramping_percent:
            raise MalformedJson("ramping_percent: of which build? Say it as ramping")
        defaults = RunDefaults(run_timeout_ms=form.defaults.run_timeout_ms, retention_ms=form.defaults.retention_ms)
        put = Routing(
            current=form.current, ramping=form.ramping, ramping_percent=form.ramping_percent, defaults=defaults
        )
        await ports.routing.put(namespace, _name(workflow), put)
        return _json(put)

    @application.post(at("/pools"), summary="Keep what is sent before the first worker.", response_class=Response)
    async def pools(request: Request) -> Response:
        form: PoolForm = of_plain(PoolForm, await read_object(request))
        topics = topics_of(form.kind, [_name(name) for name in form.names], form.build)
        if make_pools is not None:
            await make_pools(topics)
        return _json({"topics": topics})


def _with_open(found: BuildCounts) -> dict[str, Any]:
    still_open = sum(runs for status, runs in found.counts.items() if status not in _ENDED)
    return {**msgspec.structs.asdict(found), "open": still_open}


def _name(name: str) -> str:
    if not is_name(name):
        raise MalformedJson(f"{name!r} cannot name a workflow or task")
    return name


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
