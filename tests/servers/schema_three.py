"""A keyspace as the last release of schema version 3 left it: its tables, and records by the statements that it had."""

from __future__ import annotations

from collections.abc import Sequence

from perdure_runtime.adapters.cassandra import migrations
from perdure_runtime.adapters.cassandra.connection import Connection
from perdure_runtime.adapters.cassandra.listed_runs import BETWEEN, shard_of
from perdure_runtime.ports import Commit
from perdure_schemas.codec import encode_change, encode_events, encode_timer
from perdure_schemas.messages import RunChanged, ScheduleTimer

_COMMIT = (
    "UPDATE commits SET version = ?, head_run = ?, head_seq = ?, runs = ?, commit_id = ?, expires_at = ?, "
    "last_seq = ?, causes = ?, marks = marks + ?, data = ?, chunks = ? "
    "WHERE namespace = ? AND workflow_id = ? AND run_id = ? AND first_seq = ? IF version = ? AND head_run = ?"
)
_COUNT = (
    "UPDATE listed_runs SET version = ?, builds_version = ?, counts = ?, builds = ? "
    "WHERE namespace = ? AND shard = ? IF version = ?"
)
_LIST = (
    "INSERT INTO listed_runs (namespace, shard, started_at, workflow_id, run_id, run_version, name, status, build, "
    "tags, attributes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INDEX = "INSERT INTO run_index (namespace, workflow_id, run_id, started_at) VALUES (?, ?, ?, ?)"
_ROUTE = "INSERT INTO routing (namespace, workflow, current, ramping, ramping_percent) VALUES (?, ?, ?, ?, ?)"
_CLAIM = "UPDATE timer_minutes SET owner = ?, until = ? WHERE namespace = ? AND shard = ? IF owner = ? AND until = ?"
_NOTE = "UPDATE timer_minutes SET noted = true WHERE namespace = ? AND shard = ? AND minute = ? IF owner = ?"
_TIMER = "INSERT INTO timers (namespace, shard, minute, fire_at, timer_id, data) VALUES (?, ?, ?, ?, ?, ?)"


async def make_tables(connection: Connection, version: int = 3) -> None:
    """Those of this version, without the mark of the releases that may use them: nobody had it then."""
    await connection.run("CREATE TABLE IF NOT EXISTS schema_version (part text PRIMARY KEY, version int, holder text)")
    for step in migrations._MIGRATIONS[:version]:
        for statement in step.statements:
            await connection.run(statement)
    put = "UPDATE schema_version SET version = ? WHERE part = 'version' IF version = null"
    assert await connection.decide(put, version)


async def commit(connection: Connection, made: Commit) -> None:
    head, key = made.head, made.key
    causes = {event.cause: event.seq for event in made.events}
    assert await connection.decide(
        _COMMIT, head.version, head.run_id, head.seq, head.runs, made.commit_id, None, made.events[-1].seq, causes, {},
        encode_events(made.events), "", key.namespace, key.workflow_id, head.run_id, made.events[0].seq,
        made.expected_version or None, made.expected_run or None,
    )  # fmt: skip


async def list_runs(connection: Connection, namespace: str, runs: Sequence[RunChanged]) -> None:
    """Runs of one shard, and how many there are of each kind."""
    shard = shard_of(runs[0].workflow_id)
    counts, builds, rows = dict[str, int](), dict[str, int](), []
    for run in runs:
        label = f"{run.name}{BETWEEN}{run.status}"
        for counted, each in ((counts, label), (builds, f"{label}{BETWEEN}{run.build or ''}")):
            counted[each] = counted.get(each, 0) + 1
        await connection.write(_INDEX, namespace, run.workflow_id, run.run_id, run.started_at)
        place = (namespace, shard, run.started_at, run.workflow_id, run.run_id)
        labels = (run.name, run.status, run.build or "", set(run.tags), dict[str, str]())
        rows.append((_LIST, (*place, run.version, *labels, encode_change(run))))
    assert await connection.decide_together((_COUNT, (1, 1, counts, builds, namespace, shard, None)), rows)


async def route(connection: Connection, namespace: str, workflow: str, *record: object) -> None:
    """`record`: the current build, the one that is ramping, and its share in percent."""
    await connection.write(_ROUTE, namespace, workflow, *record)


async def put_timer(connection: Connection, namespace: str, shard: int, timer: ScheduleTimer) -> None:
    """By an owner whose lease has just ended when the timer is due."""
    minute = timer.due_at // 60_000
    assert await connection.decide(_CLAIM, "former", timer.due_at - 1, namespace, shard, None, None)
    assert await connection.decide(_NOTE, namespace, shard, minute, "former")
    await connection.write(_TIMER, namespace, shard, minute, timer.due_at, timer.timer_id, encode_timer(timer))
