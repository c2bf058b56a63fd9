"""The generated parts of docs/reference/http.md: what the API's own OpenAPI document says.

`python -m tests.repo.http_page` renews them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from perdure._http.application import make_application
from perdure._http.endpoints import PREFIX
from perdure._http.operations import CODES
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from tests.repo import tree

PAGE = tree.ROOT / "docs/reference/http.md"
_GROUPS = {
    "Runs": ("/runs", "/counts"),
    "Stand-alone tasks": ("/tasks",),
    "Workers and builds": ("/announced", "/backlog", "/builds", "/routing", "/pools"),
    "Large values": ("/blobs",),
}
"""Headings, and how the paths under them begin."""
_ALWAYS = {"400", "401", "413", "500", "503"}
"""Told once for all."""
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_REFERENCE = "#/components/schemas/"
_SPECIAL = {"Value": "JSON value", "Arguments": "list of JSON values"}


def document() -> dict[str, Any]:
    """As an API gives it, read back from JSON."""
    application = make_application(memory_ports(SystemClock()), "default")
    found: dict[str, Any] = json.loads(json.dumps(application.openapi()))
    return found


def renewed(page: str, made: dict[str, Any]) -> str:
    """The page with its generated parts as they are to be."""
    parts = {
        "codes": _codes(),
        "requests": _requests(made["paths"]),
        "objects": _objects(made["components"]["schemas"]),
    }

    def part(match: re.Match[str]) -> str:
        lines = "\n".join(parts.pop(match[2])).strip()
        return f"{match[1]}\n{lines}\n\n{match[3]}"

    found = _PART.sub(part, page)
    assert not parts, f"the page has no place for: {', '.join(parts)}"
    return found


def _codes() -> Iterator[str]:
    yield "| Code | Meaning, and what to do |"
    yield "| --- | --- |"
    yield from (f"| {code} | {_escaped(text)} |" for code, text in CODES.items())


def _requests(paths: dict[str, Any]) -> Iterator[str]:
    for heading, beginnings in _GROUPS.items():
        yield f"## {heading}\n"
        for path, methods in paths.items():
            short = path.removeprefix(PREFIX)
            if short.startswith(beginnings):
                for method, told in methods.items():
                    yield from _operation(f"{method.upper()} {short}", told)


def _operation(title: str, told: dict[str, Any]) -> Iterator[str]:
    yield f"### {title}\n"
    yield f"{told['description']}\n"
    if parameters := [each for each in told["parameters"] if each["in"] == "query"]:
        yield "| Parameter | Type | Default | Meaning |"
        yield "| --- | --- | --- | --- |"
        for each in parameters:
            yield _row(each["name"], each["schema"], each["description"], needed=each["required"])
        yield ""
    content = told.get("requestBody", {}).get("content", {})
    if "application/octet-stream" in content:
        yield "The body is the bytes.\n"
    elif content:
        yield from _body(content["application/json"]["schema"])
    yield f"Answers: {'; '.join(_answer(*each) for each in told['responses'].items() if each[0] not in _ALWAYS)}.\n"


def _body(schema: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield f"The body is a {_type(schema)}.\n"
        return
    yield "| Field of the body | Type | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    needed = schema.get("required", [])
    for name, field in schema["properties"].items():
        yield _row(name, field, field["description"], needed=name in needed)
    yield ""


def _answer(code: str, told: dict[str, Any]) -> str:
    ((kind, content),) = told["content"].items()
    return f"{code} {_type(content['schema']) if kind == 'application/json' else 'the bytes'}"


def _objects(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        if name in _SPECIAL:
            continue
        yield f"### {name}\n"
        yield f"{schema['description']}\n"
        yield "| Field | Type | Default | Meaning |"
        yield "| --- | --- | --- | --- |"
        needed = schema.get("required", [])
        for field, each in schema["properties"].items():
            yield _row(field, each, each["description"], needed=field in needed)
        yield ""


def _row(name: str, schema: dict[str, Any], meaning: str, *, needed: bool) -> str:
    default = "required" if needed else f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
    return f"| `{name}` | {_type(schema, name)} | {default} | {_escaped(meaning)} |"


def _type(schema: dict[str, Any], name: str = "") -> str:
    if "$ref" in schema:
        named = schema["$ref"].removeprefix(_REFERENCE)
        return _SPECIAL.get(named) or f"[{named}](#{named.lower()})"
    if "anyOf" in schema:
        kinds = [_type(each, name) for each in schema["anyOf"]]
        return " or ".join(kind for kind in kinds if kind)
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "array":
            kind = f"list of {_type(schema['items'])}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            kind = f"object of {_type(schema['additionalProperties'])} by name"
        case "integer":
            kind = _unit(schema, name)
        case found:
            kind = str(found)
    return ", ".join([kind, *_limits(schema)])


def _unit(schema: dict[str, Any], name: str) -> str:
    if schema.get("format") == "epoch-ms":
        return "integer, epoch milliseconds"
    return "integer, milliseconds" if name.endswith("_ms") else "integer"


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    for low, high, what in (
        ("minimum", "maximum", ""), ("minItems", "maxItems", " of them"), ("minLength", "maxLength", " characters"),
    ):  # fmt: skip
        if high in schema:
            yield f"{schema[low]} to {schema[high]}{what}"
        elif low in schema:
            yield f"at least {schema[low]}{what}"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), document()), encoding="utf-8")
