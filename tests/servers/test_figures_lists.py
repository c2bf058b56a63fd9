"""The read models on real servers: exact, whatever happens to the projector, and listed by everything at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from perdure_runtime.adapters.cassandra.recount import recount
from perdure_runtime.ports import Ports, RunFilter
from perdure_schemas import topics
from perdure_schemas.common import Payload
from perdure_schemas.messages import Message, RunChanged
from tests.contracts.test_contract_records import changed
from tests.servers import clean
from tests.servers.replicas import LONG, NAMESPACE, replicas, service

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(900)]

RUNS = 5_000 if LONG else 600


async def publish(ports: Ports, changes: list[RunChanged]) -> None:
    publisher = ports.broker.publisher()
    for start in range(0, len(changes), 200):
        await publisher.publish([(topics.WORKFLOW_EVENTS, message(each)) for each in changes[start : start + 200]])


def message(change: RunChanged) -> Message:
    id = f"{change.workflow_id}-{change.version}"
    return Message(id=id, namespace=NAMESPACE, key=change.workflow_id, at=1, body=change)


async def counted(ports: Ports) -> dict[str, int]:
    return (await ports.read_model.counts(NAMESPACE)).get("order", {})


async def test_counts_are_exact_after_duplicates_and_deaths_of_the_projector(tmp_path: Path) -> None:
    """Killed while it applies, its successor gets again what was not acknowledged; and all was published twice."""
    settings = clean.pulsar_settings()
    starts = [changed(f"w{number}", 1) for number in range(RUNS)]
    ends = [changed(f"w{number}", 2, "completed") for number in range(0, RUNS, 3)]
    expected = {"completed": len(ends), "running": RUNS - len(ends) + 1}
    async with replicas(1, settings) as (ports,):
        await (await ports.broker.subscribe(NAMESPACE, [topics.WORKFLOW_EVENTS], "projector", "failover")).close()
        await publish(ports, [*starts, *starts, *ends, *ends])
        for life in range(3):
            with service("projector", settings, tmp_path / "log", life):
                async with asyncio.timeout(120):
                    while sum((await counted(ports)).values()) < RUNS * (life + 1) // 4:  # noqa: ASYNC110  it tells nobody
                        await asyncio.sleep(0.02)
        await publish(ports, [changed("after all others", 1)])
        with service("projector", settings, tmp_path / "log", 3):
            async with asyncio.timeout(120):
                while await ports.read_model.get_run(NAMESPACE, "after all others", None) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                while (counts := await counted(ports)).get("completed") != len(ends):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        assert counts == expected
        assert await recount(clean.cassandra_settings(clean.keyspace()), NAMESPACE) == [], "and so say the rows"


async def test_runs_are_listed_by_all_conditions_at_once_newest_first_in_pages() -> None:
    async with replicas(1) as (ports,):
        everything = [
            msgspec.structs.replace(
                changed(f"w{number}", 1, "running" if number % 2 else "stuck", started_at=1_000 + number),
                name="order" if number % 3 else "refund",
                tags=["vip"] if number % 5 else [],
                attributes=Payload("json", b'{"city": "Bonn"}' if number % 7 else b'{"city": "Graz"}'),
                waits_for="task charge (3)" if number % 11 else "",
            )
            for number in range(RUNS)
        ]
        await ports.read_model.apply([(NAMESPACE, each) for each in everything])
        where = RunFilter(
            name="order", status="running", tag="vip", attribute=("city", "Bonn"), waits_for="task charge",
            started_from=1_100, started_before=1_500,
        )  # fmt: skip
        expected = [f"w{number}" for number in range(499, 99, -1) if all(number % each for each in (2, 3, 5, 7, 11))]
        listed: list[str] = []
        cursor: str | None = None
        while True:
            page = await ports.read_model.list_runs(NAMESPACE, where, 10, cursor)
            listed += [run.workflow_id for run in page.runs]
            cursor = page.cursor
            if cursor is None:
                break
        assert listed == expected
        assert len(expected) > 20, "several pages"
