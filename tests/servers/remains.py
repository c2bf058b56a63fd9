"""What may remain of runs after their retention: nothing, but marks that expire. Read from every table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from perdure_runtime.adapters.cassandra.connection import Connection, Row
from perdure_runtime.adapters.pulsar import PulsarSettings
from perdure_runtime.adapters.pulsar.admin import open_admin
from perdure_runtime.adapters.pulsar.names import family, inbox_namespace
from perdure_schemas.codec import decode_timer
from perdure_schemas.messages import ScheduleTimer
from tests.servers import clean

_MARK_TTL_S = 32 * 24 * 3_600
"""A tombstone, the mark of a run that lists forget, the record of a closed task, a blob in transit: 30 days, one for
clocks, one more. A signal that names no run, and so may have overtaken its start, is kept for an hour and a day."""
_TIMER_S = 25 * 3_600
"""What is due within a day, and an hour for clocks, is left to fire for nothing: tasks are watched by such timers."""
_OF_ALL_RUNS = ("archives", "archived_causes", "archived_marks", "chunked_commits", "chunks", "run_blobs",
                "routing", "listed_tasks")  # fmt: skip
_OF_MARKS = {
    "tombstones": "SELECT ttl(expires_at), workflow_id, run_id FROM tombstones",
    "commits": "SELECT ttl(last_seq), workflow_id, run_id FROM commits",
    "blob_chunks": "SELECT ttl(data), workflow_id, run_id FROM blob_chunks",
    "tasks": "SELECT ttl(record), task_id FROM tasks",
    "run_index": "SELECT ttl(forgotten), workflow_id, run_id FROM run_index",
    "run_index.started_at": "SELECT ttl(started_at), workflow_id, run_id, started_at FROM run_index",
}
"""The first column is the time to live of a column that every row has."""


async def of_runs(connection: Connection, *, minutes: bool) -> dict[str, object]:
    """What is left of runs that are past their retention, and will not go by itself, by table.

    Args:
        minutes: also rows of timers that have fired, which go with their minute: a minute or two after it is over.
    """
    left: dict[str, object] = {}
    for table in _OF_ALL_RUNS:
        left[table] = len(await connection.rows(f"SELECT * FROM {table}"))
    for table, cql in _OF_MARKS.items():
        rows = await connection.rows(cql)
        if table == "commits":
            kept = {(row[7], row[0]) for row in await clean.commits_left(connection)}
            rows = [row for row in rows if row[1:] in kept]
        left[table] = [row[1:] for row in rows if not _expires(row, _MARK_TTL_S)]
    listed = await connection.rows("SELECT run_id, counts FROM listed_runs")
    left["listed_runs"] = [run_id for run_id, _ in listed if run_id is not None]
    left["counts"] = [dict(counts) for _, counts in listed if counts]
    now = time.time() * 1000
    left["timers"] = [timer for timer in await timers_to_come(connection) if timer[1] > _TIMER_S]
    if minutes:
        of_minutes = await connection.rows("SELECT minute FROM timer_minutes")
        of_timers = await connection.rows("SELECT minute FROM timers")
        over = now // 60_000
        left["timers of past minutes"] = {minute for (minute,) in [*of_minutes, *of_timers] if (minute or over) < over}
    known = {*_OF_ALL_RUNS, *_OF_MARKS, "listed_runs", "timers", "timer_minutes"}
    left["tables that nobody looks at"] = sorted(set(await clean.used_tables(connection)) - known)
    return {table: rows for table, rows in left.items() if rows}


def _expires(row: Row, within_s: int) -> bool:
    ttl_s = row[0]
    return (len(row) > 3 and row[3] is None) or (ttl_s is not None and 0 < ttl_s <= within_s)


async def timers_to_come(connection: Connection) -> list[tuple[ScheduleTimer, int]]:
    """Timers after the mark of their minute, and in how many seconds they are due: those before it are done with."""
    minutes = await connection.rows("SELECT namespace, shard, minute, mark_at, mark_id FROM timer_minutes")
    marks = {row[:3]: (row[3] or 0, row[4] or "") for row in minutes}
    timers = await connection.rows("SELECT namespace, shard, minute, fire_at, timer_id, data FROM timers")
    now = time.time() * 1000
    to_come = [row for row in timers if row[3:5] > marks.get(row[:3], (0, ""))]
    return [(decode_timer(row[5]), round((row[3] - now) / 1000)) for row in to_come]


async def topics_and_subscriptions(settings: PulsarSettings, namespace: str) -> dict[str, Sequence[str]]:
    """Of a namespace and of its inboxes: subscriptions by topic."""
    found: dict[str, Sequence[str]] = {}
    async with open_admin(settings) as admin:
        for place in (namespace, inbox_namespace(namespace)):
            for topic in await admin.topics(place):
                stats = await admin._get(f"persistent/{settings.tenant}/{place}/{topic}/stats") or {}
                found[topic] = sorted(stats.get("subscriptions", {}))
    return found


async def backlogs(settings: PulsarSettings, namespace: str) -> Counter[str]:
    """Messages that nobody has acknowledged, by topic."""
    found: Counter[str] = Counter()
    async with open_admin(settings) as admin:
        for topic in await admin.topics(namespace):
            subscription = family(topic).subscription
            found[topic] = await admin.backlog(namespace, topic, subscription) if subscription else 0
    return +found
