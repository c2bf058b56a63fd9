"""The generated parts of docs/reference/wire.md: tables of the schemas, and example bytes taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_writer

from perdure_schemas import codec, schema
from perdure_schemas.coders import STRUCTS
from perdure_schemas.common import Payload
from perdure_schemas.messages import Message, TaskOutcome
from tests.schemas import oracle

TASK_WORKER = [
    "RunTask",
    "AttemptOutcome",
    "TaskOutcome",
    "TaskResult",
    "AttemptStarted",
    "AttemptHeartbeat",
    "AttemptCancelRequested",
    "WorkerHello",
    "DispatchTask",
    "Payload",
    "Failure",
    "Address",
    "WorkflowRef",
    "TaskOptions",
    "RetryPolicy",
]
"""What a worker that runs tasks meets."""

EXAMPLE = Message(
    id="0190f7a2-0000-7000-8000-000000000001",
    namespace="default",
    key="order-1",
    at=1_700_000_000_123,
    emitter="worker-1",
    causation_id="m-1",
    body=TaskOutcome(
        workflow_id="order-1",
        run_id="r-1",
        command_id="c-1",
        generation=0,
        attempt=1,
        outcome="completed",
        result=Payload("json", b"42"),
    ),
)


def families() -> Iterator[str]:
    for family, envelope in schema.ENVELOPES.items():
        yield f"### Family `{family}`: [{envelope}](../../schemas/avro/envelope/{envelope}.avsc)"
        yield ""
        yield "| Member | Record | Meaning |"
        yield "| --- | --- | --- |"
        for each in schema.envelope_fields(family):
            name = schema.member_type(each)
            if name is not None:
                yield f"| `{each['name']}` | {_link(name)} | {_text(schema.record(name).get('doc', ''))} |"
        yield ""


def header() -> Iterator[str]:
    fields = schema.envelope_fields("worker")
    yield from _fields([each for each in fields if schema.member_type(each) is None])


def records() -> Iterator[str]:
    for name in TASK_WORKER:
        record = schema.record(name)
        yield f"### {_link(name)}"
        yield ""
        if "doc" in record:
            yield _text(record["doc"])
            yield ""
        yield from _fields(record["fields"])
        yield ""


def enums() -> Iterator[str]:
    yield "| Field | Values | An unknown one is read as |"
    yield "| --- | --- | --- |"
    for name in sorted(set(STRUCTS) - {"Message"}):
        for each in schema.record(name)["fields"]:
            if "symbols" in each:
                values = ", ".join(f"`{symbol}`" for symbol in each["symbols"])
                unknown = f"`{each['unknown']}`" if "unknown" in each else "refused"
                yield f"| `{name}.{each['name']}` | {values} | {unknown} |"


def example() -> Iterator[str]:
    """The bytes of the example, field by field."""
    fields = oracle.envelope(EXAMPLE)
    composed = schema.envelope_schema("workflow-engine")
    yield "| Bytes | Field | Value |"
    yield "| --- | --- | --- |"
    written = b""
    nulls = b""
    for data, path, value in [*_parts(composed, fields, ""), (b"", "", None)]:
        if path in oracle.members("workflow-engine"):
            nulls += data
            continue
        if nulls:
            yield f"| `{nulls.hex(' ')}` | members that are not set | |"
            written, nulls = written + nulls, b""
        if path:
            yield f"| `{data.hex(' ')}` | `{path}` | {'null' if value is None else f'`{value}`'} |"
            written += data
    assert written == codec.encode(EXAMPLE)


def _parts(node: Any, value: Any, path: str) -> Iterator[tuple[bytes, str, Any]]:
    """(bytes, path, value) of every leaf, in the order of writing."""
    match node:
        case {"type": "record", "fields": fields}:
            for each in fields:
                inner = f"{path}.{each['name']}" if path else each["name"]
                yield from _parts(each["type"], value.get(each["name"]), inner)
        case str(name) if name.startswith(schema.NAMESPACE):
            yield from _parts(schema.compose(name.rpartition(".")[2]), value, path)
        case ["null", _] if value is None:
            yield b"\x00", path, None
        case ["null", inner]:
            first, *rest = _parts(inner, value, path)
            yield b"\x02" + first[0], first[1], first[2]
            yield from rest
        case _:
            stream = BytesIO()
            schemaless_writer(stream, parse_schema(node), value)
            yield stream.getvalue(), path, json.dumps(value.decode() if isinstance(value, bytes) else value)


def _fields(fields: list[dict[str, Any]]) -> Iterator[str]:
    yield "| Field | Type | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    for each in fields:
        default = f"`{json.dumps(each['default'])}`" if "default" in each else ""
        meaning = _text(each.get("doc", ""))
        if "symbols" in each:
            meaning = f"{meaning} One of {', '.join(f'`{symbol}`' for symbol in each['symbols'])}.".strip()
        yield f"| `{each['name']}` | {_type(each['type'])} | {default} | {meaning} |"


def _type(node: Any) -> str:
    match node:
        case ["null", inner]:
            return f"{_type(inner)}, or null"
        case {"type": "array", "items": items}:
            return f"array of {_type(items)}"
        case str(name) if name in STRUCTS or name in schema.UNIONS:
            return _link(name)
        case _:
            return str(node)


def _link(name: str) -> str:
    (path,) = schema.folder().glob(f"*/{name}.avsc")
    return f"[{name}](../../schemas/avro/{path.parent.name}/{name}.avsc)"


def _text(doc: str) -> str:
    return doc.replace("|", "\\|")


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "families": families,
    "header": header,
    "records": records,
    "enums": enums,
    "example": example,
}
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(page: str) -> str:
    """The page with its generated parts as they are to be."""

    def part(match: re.Match[str]) -> str:
        lines = "\n".join(PARTS[match.group(2)]()).strip()
        return f"{match.group(1)}\n{lines}\n\n{match.group(3)}"

    return _PART.sub(part, page)


def parts(page: str) -> list[str]:
    return [match.group(2) for match in _PART.finditer(page)]
