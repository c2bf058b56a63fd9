"""The OpenAPI document says enough to make clients from, and what it says is true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from perdure._http.application import make_application
from perdure._http.endpoints import PREFIX
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from tests.http.test_http_api import Api, with_api

DOCUMENT: dict[str, Any] = json.loads(json.dumps(make_application(memory_ports(SystemClock()), "default").openapi()))
OPERATIONS = [
    (method, path.removeprefix(PREFIX), told)
    for path, methods in DOCUMENT["paths"].items()
    for method, told in methods.items()
]


def nodes(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each object in the document."""
    if isinstance(node, dict):
        yield where, node
        for name, each in node.items():
            yield from nodes(each, f"{where}/{name}")
    elif isinstance(node, list):
        for number, each in enumerate(node):
            yield from nodes(each, f"{where}/{number}")


def undescribed(document: dict[str, Any]) -> list[str]:
    """Properties, parameters and answers that do not say what they mean, or of which type they are."""
    found = []
    for where, node in nodes(document, ""):
        holder = where.rpartition("/")[0].rpartition("/")[2]
        if holder in {"properties", "parameters"}:
            typed = node.get("schema", node)
            if not node.get("description") or not typed.keys() & {"type", "enum", "anyOf", "$ref"}:
                found.append(where)
        elif holder == "responses" and not (node.get("description") and node.get("content")):
            found.append(where)
    return found


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def told(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][PREFIX + path][method]
    return found


def test_every_field_says_what_it_is() -> None:
    assert undescribed(DOCUMENT) == []
    bare = {"paths": {"/x": {"get": {"parameters": [{"schema": {"type": "string"}}], "responses": {"200": {}}}}}}
    assert undescribed(bare) == ["/paths//x/get/parameters/0", "/paths//x/get/responses/200"]


def test_every_reference_leads_somewhere_and_names_are_unique() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    led = {node["$ref"].rpartition("/")[2] for _, node in nodes(DOCUMENT, "") if isinstance(node.get("$ref"), str)}
    assert led == schemas.keys()
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_part_of_a_path_is_a_parameter() -> None:
    for _, path, operation in OPERATIONS:
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == {part[1:-1] for part in (PREFIX + path).split("/") if part.startswith("{")}


def test_no_name_of_the_framework_is_left() -> None:
    assert "HTTPValidationError" not in json.dumps(DOCUMENT)
    assert all("422" not in operation["responses"] for _, _, operation in OPERATIONS)


EXAMPLES = {
    "name": "hello", "args": [1], "workflow_id": "w", "run_id": "r", "position": "0", "build": "b", "task_id": "t",
    "outcome": "completed", "kind": "task", "names": ["pack"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [each for each in OPERATIONS if "application/json" in str(each[2].get("requestBody"))],
)
def test_fields_are_required_that_have_to_be_given_and_no_others(method: str, path: str, operation: Any) -> None:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    needed = schema.get("required", [])
    asked = path.format(workflow_id="nobody", channel="go", name="status", task_id="nobody", workflow="hello")

    async def work(api: Api, url: str) -> None:
        async def status(body: dict[str, Any]) -> int:
            async with api._session.request(method, api.base + asked, json=body) as answer:
                return answer.status

        enough = {name: EXAMPLES[name] for name in needed} | (
            {"name": "refuse", "args": [1]} if path == "/tasks" else {}
        )
        assert await status(enough) in {200, 404}
        for name in needed:
            assert await status({each: value for each, value in enough.items() if each != name}) == 400

    with_api(work)


def test_answers_are_as_described() -> None:
    async def work(api: Api, url: str) -> None:
        async def check(method: str, path: str, asked: str = "", body: Any = None, *, code: int = 200) -> Any:
            request = api._session.request(method, api.base + (asked or path), json=body)
            async with request as answer:
                found = await answer.json()
            assert answer.status == code, found
            schema = told(method, path)["responses"][str(code)]["content"]["application/json"]["schema"]
            validator(schema).validate(found)
            known = {name for each in _objects(schema) for name in each["properties"]}
            assert found.keys() <= known
            return found

        await check("post", "/runs", "/runs?wait=20", {"name": "hello", "args": [1], "workflow_id": "h"})
        await check("post", "/runs", body={"name": "helo"})
        await check("post", "/runs", body={"name": "Order", "workflow_id": "o", "run_id": "r"})
        await check("post", "/runs", body={"name": "Order", "workflow_id": "o"}, code=409)
        await check("post", "/runs", body={"name": ""}, code=400)
        run = "/runs/{workflow_id}"
        await check("get", f"{run}/result", "/runs/o/result?wait=0.01", code=202)
        await check("post", f"{run}/signals/{{channel}}", "/runs/o/signals/go", {"payload": "a"})
        await check("post", f"{run}/signals/{{channel}}", "/runs/later/signals/go", {"payload": "a"})
        await check("post", f"{run}/updates/{{name}}", "/runs/o/updates/add", {"args": ["b"]})
        await check("post", f"{run}/updates/{{name}}", "/runs/o/updates/no", {}, code=409)
        await check("post", f"{run}/queries/{{name}}", "/runs/o/queries/status", {"query_id": "q"})
        await check("post", f"{run}/queries/{{name}}", "/runs/nobody/queries/status", code=404)
        await check("post", f"{run}/cancel", "/runs/o/cancel", {"reason": "test"})
        await check("get", f"{run}/result", "/runs/o/result")
        await check("get", f"{run}/result", "/runs/nobody/result", code=404)
        await check("get", run, "/runs/o")
        await check("get", run, "/runs/nobody", code=404)
        history = await check("get", f"{run}/history", "/runs/o/history?run_id=r")
        assert len(history["events"]) > 3
        await check("get", f"{run}/tasks", "/runs/o/tasks?run_id=r")
        await check("get", "/runs", "/runs?limit=1")
        await check("get", "/counts")
        await check("post", "/tasks", body={"name": "refuse", "args": [1], "task_id": "t"})
        await check("get", "/tasks/{task_id}/result", "/tasks/nobody/result", code=404)
        for path in ("/announced", "/backlog", "/builds"):
            await check("get", path)
        await check("put", "/routing/{workflow}", "/routing/hello", {"current": "1"})
        await check("post", "/pools", body={"kind": "task", "names": ["pack"]})

    with_api(work)


def _objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that an answer may be."""
    kinds = schema.get("anyOf", [schema])
    return [DOCUMENT["components"]["schemas"][each["$ref"].rpartition("/")[2]] for each in kinds]
