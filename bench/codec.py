"""Measures the codec against the Avro library and MessagePack; writes build/bench/codec.json: `make codec`.

All are timed in turns within one run, so that the ratios hold on a busy machine too. A time is processor time, the
best of several rounds: what else ran can only add to it. As under load, all times in a message are one millisecond.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import machine
import msgspec
from rich.console import Console
from rich.table import Table

from perdure_schemas import codec, schema
from perdure_schemas.common import Address, Command, Payload, RunOptions, TaskOptions, WaitGroup, WaitsFor, WorkflowRef
from perdure_schemas.events import CommandSettled, Recorded, Started, TurnCommitted
from perdure_schemas.messages import (
    DispatchTask,
    Message,
    RunChanged,
    RunResult,
    RunTask,
    RunWorkflowTask,
    StartWorkflow,
    TaskOutcome,
    WorkflowTaskCompleted,
)

RESULT = Path("build/bench/codec.json")
ROUNDS = 7
SECONDS_PER_ROUND = 0.02

ID = "0123456789abcdef" * 2
NOW = 1_700_000_000_123
VALUE = Payload("json", b'{"a": 41}')
ADDRESSES = [Address("workflow-engine", "order-1"), Address("task-engine", ID)]
WORKFLOW = WorkflowRef("order-1", ID, "hello")
COMMAND = Command(id=ID, position="0", kind="task", name="add", digest=ID, args=VALUE, task=TaskOptions())
WAITS = WaitsFor([WaitGroup("any", [ID])])
SETTLED = CommandSettled(command_id=ID, outcome="completed", result=VALUE)
TURN = TurnCommitted(
    workflow_task_id=ID, base=1, nonce=ID, generation=0, commands=[COMMAND], waits_for=WAITS, python="3.11.7"
)


def recorded(seq: int, event: Any) -> Recorded:
    return Recorded(seq=seq, at=NOW, cause=ID, event=event)


STARTED = recorded(1, Started(run_id=ID, name="hello", args=VALUE, options=RunOptions()))
COMMIT = [STARTED, recorded(2, TURN)]
"""The first commit of a small run."""


def turn(events: list[Recorded]) -> RunWorkflowTask:
    return RunWorkflowTask(
        workflow_task_id=ID,
        workflow_id="order-1",
        run_id=ID,
        name="hello",
        generation=0,
        attempt=1,
        committed=0,
        base=len(events),
        base_hash=ID,
        hashes=[ID] * len(events),
        events=events,
        history_length=len(events),
    )


BODIES: dict[str, Any] = {
    "StartWorkflow": StartWorkflow(workflow_id="order-1", run_id=ID, name="hello", args=VALUE, reply_topic="inbox.x"),
    "RunWorkflowTask": turn([STARTED]),
    "RunWorkflowTask, 20 events": turn([recorded(seq, SETTLED) for seq in range(1, 21)]),
    "WorkflowTaskCompleted": WorkflowTaskCompleted(
        workflow_id="order-1",
        run_id=ID,
        workflow_task_id=ID,
        generation=0,
        committed=0,
        base=1,
        base_hash=ID,
        hashes=[ID],
        commands=[COMMAND],
        waits_for=WAITS,
        python="3.11.7",
    ),
    "RunTask": RunTask(
        task_id=ID,
        attempt_id=ID,
        attempt=1,
        name="add",
        args=VALUE,
        options=TaskOptions(),
        answer_to=ADDRESSES,
        workflow=WORKFLOW,
    ),
    "DispatchTask": DispatchTask(
        task_id=ID, name="add", args=VALUE, options=TaskOptions(), answer_to=ADDRESSES, workflow=WORKFLOW
    ),
    "TaskOutcome": TaskOutcome(
        workflow_id="order-1", run_id=ID, command_id=ID, generation=0, attempt=1, outcome="completed", result=VALUE
    ),
    "RunResult": RunResult(workflow_id="order-1", run_id=ID, status="completed", result=VALUE),
    "RunChanged": RunChanged(
        workflow_id="order-1",
        run_id=ID,
        name="hello",
        version=1,
        status="running",
        generation=0,
        started_at=NOW,
        changed_at=NOW,
        events=COMMIT,
    ),
}


class Library:
    """The same bytes by the Avro library: structs to mappings, then one record of header, constant nulls and body."""

    def __init__(self, message: Message) -> None:
        name = codec.body_type(message)
        fields = schema.envelope_fields(schema.family(type(message.body)))
        members = [member for field in fields if (member := schema.member_type(field)) is not None]
        self._body = type(message.body)
        self._before = b"\x00" * members.index(name) + b"\x02"
        self._after = b"\x00" * (len(members) - members.index(name) - 1)
        nulls = {"type": "fixed", "name": "Nulls", "size": len(self._before)}
        header = [field for field in fields if schema.member_type(field) is None]
        wire = [*header, {"name": "before", "type": nulls}, {"name": "body", "type": name}]
        self._schema: Any = fastavro.parse_schema(
            schema.compose({"type": "record", "namespace": schema.NAMESPACE, "name": "Wire", "fields": wire})
        )

    def encode(self, message: Message) -> bytes:
        body = msgspec.to_builtins(message.body, builtin_types=(bytes,))
        for event in body.get("events", ()):
            event["event"] = _tagged(event["event"])
        fields = {
            "v": schema.VERSION,
            "type": self._body.__name__,
            "message_id": message.id,
            "namespace": message.namespace,
            "key": message.key,
            "emitted_at": message.at,
            "emitter": message.emitter,
            "causation_id": message.causation_id,
            "traceparent": message.traceparent,
            "before": self._before,
            "body": body,
        }
        stream = BytesIO()
        fastavro.schemaless_writer(stream, self._schema, fields)
        return stream.getvalue() + self._after

    def decode(self, data: bytes) -> Message:
        fields: Any = fastavro.schemaless_reader(BytesIO(data), self._schema, None)
        body = fields["body"]
        for event in body.get("events", ()):
            event["event"] = _untagged(event["event"])
        return Message(
            id=fields["message_id"],
            namespace=fields["namespace"],
            key=fields["key"],
            at=fields["emitted_at"],
            body=msgspec.convert(body, self._body),
            emitter=fields["emitter"],
            causation_id=fields["causation_id"],
            traceparent=fields["traceparent"],
        )


_MEMBERS = {schema.member_type(field): field["name"] for field in schema.record("Event")["fields"]}


def _tagged(event: dict[str, Any]) -> dict[str, Any]:
    return {"type": event["type"], _MEMBERS[event["type"]]: event}


def _untagged(union: dict[str, Any]) -> dict[str, Any]:
    return {**union[_MEMBERS[union["type"]]], "type": union["type"]}


def microseconds(*works: Callable[[], object]) -> list[float]:
    """Of one call of each."""
    best = [float("inf")] * len(works)
    counts = [max(1, int(SECONDS_PER_ROUND / _seconds(work, 3))) for work in works]
    for _ in range(ROUNDS):
        for position, (work, count) in enumerate(zip(works, counts, strict=True)):
            best[position] = min(best[position], _seconds(work, count))
    return [1e6 * seconds for seconds in best]


def _seconds(work: Callable[[], object], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - started) / count


def measure_message(body: Any) -> dict[str, float]:
    message = Message(id=ID, namespace="default", key="order-1", at=NOW, body=body, emitter="worker-1")
    library = Library(message)
    data = codec.encode(message)
    assert library.encode(message) == data
    assert library.decode(data) == codec.decode(data) == message
    pack, unpack = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(type(body))
    packed = pack.encode(body)
    times = microseconds(
        lambda: codec.encode(message),
        lambda: library.encode(message),
        lambda: pack.encode(body),
        lambda: codec.decode(data),
        lambda: library.decode(data),
        lambda: unpack.decode(packed),
    )
    names = ["encode_us", "library_encode_us", "msgpack_encode_us"]
    names += ["decode_us", "library_decode_us", "msgpack_decode_us"]
    return {"bytes": float(len(data)), "msgpack_bytes": float(len(packed)), **dict(zip(names, times, strict=True))}


def measure_commit() -> dict[str, float]:
    """Two events as a store keeps them, and as Avro: the difference that an empty and a full `RunChanged` make."""
    changed = Message(id=ID, namespace="default", key="order-1", at=NOW, body=BODIES["RunChanged"])
    empty = msgspec.structs.replace(changed, body=msgspec.structs.replace(changed.body, events=[]))
    library = Library(changed)
    full_data, empty_data, stored = codec.encode(changed), codec.encode(empty), codec.encode_events(COMMIT)
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("avro_encode_us", lambda: codec.encode(changed), lambda: codec.encode(empty)),
        ("avro_decode_us", lambda: codec.decode(full_data), lambda: codec.decode(empty_data)),
        ("library_encode_us", lambda: library.encode(changed), lambda: library.encode(empty)),
        ("library_decode_us", lambda: library.decode(full_data), lambda: library.decode(empty_data)),
    ]
    result = {"bytes": float(len(stored)), "avro_bytes": float(len(full_data) - len(empty_data))}
    for name, full, without in pairs:
        with_events, rest = microseconds(full, without)
        result[name] = with_events - rest
    result["encode_us"], result["decode_us"] = microseconds(
        lambda: codec.encode_events(COMMIT), lambda: codec.decode_events(stored)
    )
    return result


def main() -> None:
    load = machine.load()
    messages = {name: measure_message(body) for name, body in BODIES.items()}
    result = {
        "machine": machine.description(),
        "load": load,
        "messages": messages,
        "commit_of_two_events": measure_commit(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(messages, result["commit_of_two_events"])


def show(messages: dict[str, dict[str, float]], commit: Any) -> None:
    table = Table("message", "bytes", title="microseconds: codec, and how many times as much the others take")
    for title in ("encode", "Avro library", "MessagePack", "decode", "Avro library", "MessagePack"):
        table.add_column(title, justify="right")
    for name, times in messages.items():
        cells = []
        for way in ("encode", "decode"):
            own = times[f"{way}_us"]
            cells.append(f"{own:.1f}")
            cells += [f"{times[f'{other}_{way}_us'] / own:.2f}x" for other in ("library", "msgpack")]
        table.add_row(name, f"{times['bytes']:.0f}", *cells)
    console = Console()
    console.print(table)
    console.print(
        f"A commit of two events: stored as MessagePack {commit['encode_us']:.1f} / {commit['decode_us']:.1f} us, "
        f"as Avro {commit['avro_encode_us']:.1f} / {commit['avro_decode_us']:.1f} us, "
        f"by the Avro library {commit['library_encode_us']:.1f} / {commit['library_decode_us']:.1f} us."
    )


if __name__ == "__main__":
    main()
