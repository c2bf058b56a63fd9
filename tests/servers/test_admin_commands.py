"""`perdure admin` on the real servers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.cassandra.listed_runs import BETWEEN, shard_of
from perdure_runtime.adapters.cassandra.migrations import LATEST
from perdure_runtime.adapters.cassandra.read_model import CassandraReadModel
from perdure_runtime.adapters.pulsar import PulsarBroker, PulsarSettings
from perdure_runtime.adapters.pulsar.admin import PulsarAdmin, open_admin
from perdure_schemas import topics
from tests.contracts.test_contract_records import changed
from tests.contracts.worlds import message
from tests.servers import clean

pytestmark = pytest.mark.timeout(600)
Answer = tuple[int, Any, str]
Command = Callable[..., Answer]
"""Exit code, what is printed as JSON, and what is told on stderr."""


def run(environment: dict[str, str], *arguments: str) -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "perdure.cli", "admin", *arguments],
        env={**os.environ, "NO_COLOR": "1", **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


@pytest.fixture
def environment() -> dict[str, str]:
    found = clean.real_servers()
    return {
        "PERDURE_PULSAR_URL": found.pulsar_url,
        "PERDURE_PULSAR_ADMIN_URL": found.pulsar_admin_url,
        "PERDURE_PULSAR_TENANT": f"test-{uuid4().hex[:16]}",
        "PERDURE_CASSANDRA_HOSTS": found.cassandra_host,
        "PERDURE_CASSANDRA_PORT": str(found.cassandra_port),
        "PERDURE_CASSANDRA_REPLICATION": "1",
        "PERDURE_CASSANDRA_KEYSPACE": f"test_{uuid4().hex[:16]}",
    }


@pytest.fixture
def migrated(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment, with the keyspace made; dropped in the end."""
    keyspace = environment["PERDURE_CASSANDRA_KEYSPACE"]
    for _ in range(2):  # what is there stays as it is
        assert run(environment, "migrate") == (0, {"keyspace": keyspace, "version": LATEST}, "")
    yield environment

    async def drop() -> None:
        connection = await connect(clean.cassandra_settings(keyspace), None)
        await connection.run(f"DROP KEYSPACE {keyspace}")
        await connection.close()

    asyncio.run(drop())


def test_init_makes_what_engines_need_and_may_be_repeated(environment: dict[str, str]) -> None:
    for _ in range(2):
        code, made, _ = run(environment, "init", "-n", "shop")
        assert code == 0
        assert made["namespace"] == "shop"
        assert {topics.WORKFLOW_ENGINE, topics.TIMERS, topics.dead_letters(topics.TASK_ENGINE)} <= set(made["topics"])


def test_recount_tells_what_differed_and_puts_it_right(migrated: dict[str, str]) -> None:
    keyspace = migrated["PERDURE_CASSANDRA_KEYSPACE"]

    async def spoil() -> None:
        connection: Connection = await connect(clean.cassandra_settings(keyspace), keyspace)
        await CassandraReadModel(connection).apply([("default", changed("a", 1)), ("default", changed("b", 1))])
        name, status = changed("a", 1).name, changed("a", 1).status
        await connection.decide(
            "UPDATE listed_runs SET counts = ? WHERE namespace = ? AND shard = ? IF version = 1",
            {f"{name}{BETWEEN}{status}": 7, f"gone{BETWEEN}failed": 2}, "default", shard_of("a"),
        )  # fmt: skip
        await connection.close()

    asyncio.run(spoil())
    run_of_a = changed("a", 1)
    others = 0 if shard_of("a") == shard_of("b") else 1
    code, different, _ = run(migrated, "recount")
    assert code == 0
    assert different == [
        {"name": "gone", "build": None, "status": "failed", "counted": 2, "found": 0},
        {"name": run_of_a.name, "build": None, "status": run_of_a.status, "counted": 7 + others, "found": 2},
    ]
    assert run(migrated, "recount") == (0, [], "the counts were right\n")


def test_a_keyspace_that_nobody_migrated_is_told_what_to_do(environment: dict[str, str]) -> None:
    code, _, told = run(environment, "recount")
    assert code == 5
    assert "run `perdure admin migrate`" in told


@pytest.mark.parametrize(("usable_from", "code", "told"), [
    (LATEST, 0, f"this one, of schema version {LATEST}, can use them: nothing was changed"),
    (LATEST + 1, 1, f"usable by releases of schema version {LATEST + 1} and newer; this one is of {LATEST}: use the"),
], ids=["usable", "not usable"])  # fmt: skip
def test_tables_of_a_newer_release_stay_and_who_cannot_use_them_is_told_so(
    migrated: dict[str, str], usable_from: int, code: int, told: str
) -> None:
    settings = clean.cassandra_settings(migrated["PERDURE_CASSANDRA_KEYSPACE"])
    asyncio.run(clean.migrate_by_the_next_release(settings, usable_from))
    ended, printed, said = run(migrated, "migrate")
    assert ended == code
    assert printed == (None if code else {"keyspace": settings.keyspace, "version": LATEST + 1})
    assert told in " ".join(said.split())


def test_dead_letters_are_listed_shown_and_sent_home(environment: dict[str, str]) -> None:
    settings = PulsarSettings(
        url=environment["PERDURE_PULSAR_URL"], admin_url=environment["PERDURE_PULSAR_ADMIN_URL"],
        tenant=environment["PERDURE_PULSAR_TENANT"],
    )  # fmt: skip
    assert run(environment, "init", "-n", "ns")[0] == 0
    asyncio.run(bury(settings))
    code, listed, _ = run(environment, "dlq", "list", "-n", "ns")
    assert code == 0
    raw, *readable = listed
    assert [(each["id"], each["topic"], each["key"]) for each in readable] == [
        (name, topics.TASK_ENGINE, "k") for name in ("three", "two", "one")
    ]
    assert raw["id"].startswith("raw-")
    assert raw["problem"] == "not ours"

    assert run(environment, "dlq", "show", "two", "-n", "ns")[1]["id"] == "two"
    assert run(environment, "dlq", "show", "four", "-n", "ns")[0] == 3
    assert run(environment, "dlq", "replay", "-n", "ns")[0] == 2

    code, gone, told = run(environment, "dlq", "replay", "two", "four", "-n", "ns")
    assert (code, gone) == (3, [{"id": "two", "outcome": "replayed"}])
    assert "no dead letter four" in told
    assert asyncio.run(waiting(settings)) == 1

    code, gone, _ = run(environment, "dlq", "replay", "--all", "-n", "ns")
    assert code == 0
    assert sorted((each["id"], each["outcome"]) for each in gone if each["id"] != raw["id"]) == [
        ("one", "replayed"),
        ("three", "replayed"),
    ]
    assert {"id": raw["id"], "outcome": "stays: this release cannot read it"} in gone
    assert asyncio.run(waiting(settings)) == 3
    assert [each["id"] for each in run(environment, "dlq", "list", "-n", "ns")[1]] == [raw["id"]]


async def bury(settings: PulsarSettings) -> None:
    broker = PulsarBroker(settings)
    try:
        for name in ("one", "two", "three"):
            await broker.publisher().publish([(topics.dead_letters(topics.TASK_ENGINE), message(name, "k"))])
        await broker.publisher().publish_raw(topics.dead_letters(topics.TIMERS), "ns", b"\xff", "not ours")
    finally:
        await broker.close()


async def waiting(settings: PulsarSettings) -> int:
    """What engines have still to read: nobody reads here."""
    async with open_admin(settings) as admin:
        assert isinstance(admin, PulsarAdmin)
        return await admin.backlog("ns", topics.TASK_ENGINE, "task-engine")


@pytest.mark.parametrize("arguments", [("init",), ("dlq", "list")])
def test_a_pulsar_that_is_not_there_is_told_with_what_to_check(arguments: tuple[str, ...]) -> None:
    code, _, told = run({"PERDURE_PULSAR_ADMIN_URL": "http://127.0.0.1:9"}, *arguments)
    assert code == 5
    assert "http://127.0.0.1:9" in told
    assert "try: PERDURE_PULSAR_URL" in told


def test_wrong_settings_are_told_all_at_once() -> None:
    code, _, told = run({"PERDURE_CASSANDRA_PORT": "x", "PERDURE_PULSAR_TENANT": "t"}, "init", "-n", "No Name")
    assert code == 78
    assert "PERDURE_CASSANDRA_PORT" in told
    assert "PERDURE_NAMESPACE" in told
