"""Servers that go away, fill their disks or change their minds about us, under processes that nobody restarts.

What was accepted ends, once and rightly; meanwhile each process tells what is wrong, and none has to be restarted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from perdure import Client
from perdure.errors import Unavailable
from tests.chaos import load as loads
from tests.chaos.audit import Report, audit_effects, audit_runs, audit_timers, marks_of
from tests.chaos.load import Load
from tests.chaos.processes import Cut
from tests.servers import provision
from tests.servers.clean import need_tools
from tests.servers.outages import ROLES, SERVICES, Cluster, until
from tests.servers.own_servers import OwnServers, own_servers, token
from tests.servers.provision import free_port
from tests.servers.replicas import LONG

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1_800)]

DOWN_S = 300.0 if LONG else 15.0
RECOVERY_S = 60.0
"""From when a server answers until runs that are started then end; more on a machine that does much else."""
USERS = 6
ACCEPTED_MIN = 12
"""Runs that are there when the outage begins."""
NAMESPACE = "outages"


@dataclass
class Place:
    own: OwnServers
    cluster: Cluster
    store: Cut
    """Between the services and Cassandra."""
    loads: int = 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One deployment for all: what one outage leaves behind, the next test meets."""
    need_tools()
    with provision.alone():
        async with own_servers(tmp_path_factory.mktemp("servers"), NAMESPACE) as own:
            store = Cut(own.cassandra_port, free_port())
            await store.open()
            environment = own.environment() | {"PERDURE_CASSANDRA_PORT": str(store.port)}
            cluster = Cluster(tmp_path_factory.mktemp("cluster"), environment, NAMESPACE, ROLES)
            with cluster.started():
                await cluster.works("first")
                yield Place(own, cluster, store)
            await store.close()


@pytest.fixture(autouse=True)
def results_outlive_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "RETENTION_S", 3_600.0)


async def test_what_was_accepted_outlives_the_death_of_the_broker(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = place.own.pulsar()
    told = ("Pulsar at 127.0.0.1:", "cannot be reached", "PERDURE_PULSAR_URL")

    async def mend() -> None:
        await broker.run("start")
        await broker.run("wait")

    figures = await _outage(place, lambda: broker.run("kill9"), mend, told)
    with capsys.disabled():
        print(figures)


async def test_what_was_accepted_outlives_the_death_of_the_store(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    store = place.own.cassandra()
    told = ("Cassandra at 127.0.0.1", "cannot be reached", "PERDURE_CASSANDRA_HOSTS")

    async def mend() -> None:
        await store.run("start")
        await store.run("wait")

    figures = await _outage(place, lambda: store.run("kill9"), mend, told)
    with capsys.disabled():
        print(figures)


async def test_what_was_accepted_outlives_a_full_disk_of_the_store(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cassandra's own answer to a full disk is to stop, or to die of it: its commit log is a mapped file."""
    store = place.own.cassandra()
    told = ("Cassandra at 127.0.0.1", "cannot be reached", "PERDURE_CASSANDRA_HOSTS")

    async def fill() -> None:
        place.own.resize("cassandra", place.own.used("cassandra") + 256 * 1024)

    async def mend() -> None:
        place.own.resize("cassandra")
        for verb in ("stop", "start", "wait"):
            await store.run(verb)

    figures = await _outage(place, fill, mend, told)
    with capsys.disabled():
        print(figures)


async def _outage(
    place: Place,
    begin: Callable[[], Awaitable[None]],
    mend: Callable[[], Awaitable[None]],
    told: tuple[str, ...],
) -> str:
    """An outage of DOWN_S while runs, timers and starts are under way."""
    cluster = place.cluster
    before = {role: len(cluster.reasons(role)) for role in ROLES}
    async with cluster.client() as client:
        place.loads += 1
        load = Load(client, place.loads, USERS, first=10_000 * place.loads)
        running = asyncio.create_task(load.run())
        try:
            await until(lambda: len(load.promises) >= ACCEPTED_MIN, "runs are accepted")
            await begin()
            began = time.monotonic()
            await until(lambda: _told(cluster, before, told), "a service says what is wrong")
            seen = await _start(client, f"during-{place.loads}")
            while time.monotonic() < began + DOWN_S:
                await cluster.check_health()
                await asyncio.sleep(0.5)
            accepted = len(load.promises)
            await mend()
            recovery = await cluster.works(f"after-{place.loads}")
            load.close()
            await asyncio.wait_for(running, 240)
        finally:
            running.cancel()
            await asyncio.wait([running])
    report = Report()
    promises, marks = list(load.promises.values()), marks_of(cluster.effects.read_text())
    audit_runs(report, promises)
    audit_effects(report, promises, marks)
    audit_timers(report, promises, marks)
    assert not report.violations
    await cluster.check_health()
    cluster.check_words(place.own.password, token(place.own.key))
    assert recovery < RECOVERY_S
    return (
        f"\nan outage of {DOWN_S:.0f} s: {accepted} runs accepted before and in it, {report.runs} in all; "
        f"a client was told {seen!r}; a run ends {recovery:.1f} s after it"
    )


def _told(cluster: Cluster, before: dict[str, int], words: tuple[str, ...]) -> bool:
    """Whether an engine has said all of this since."""
    return any(
        all(word in reason for word in words) for role in SERVICES for reason in cluster.reasons(role)[before[role] :]
    )


async def _start(client: Client, workflow_id: str) -> str:
    """What somebody is told who starts a run now; nothing: it was accepted, at once or after a while."""
    try:
        await client.start("hello", 1, id=workflow_id)
    except Unavailable as error:
        return str(error)
    return ""


async def test_a_password_that_is_no_longer_right_is_told_and_needs_no_restart_once_it_is(
    place: Place, tmp_path: Path
) -> None:
    """Of processes that run, whose connections are lost meanwhile, and of one that starts then."""
    own, cluster = place.own, place.cluster
    told = ("Cassandra at 127.0.0.1", "refuses user 'perdure'", "PERDURE_CASSANDRA_PASSWORD")
    await own.cql("ALTER ROLE perdure WITH PASSWORD = 'another'")
    place.store.sever()
    place.store.mend()
    late = Cluster(tmp_path, own.environment(), NAMESPACE, ("timer",))
    with late.started():
        async with cluster.client() as client:
            starting = asyncio.create_task(_start(client, "refused"))
            await until(lambda: late.all_told(*told), "who starts is told")
            await until(lambda: cluster.all_told(*told, roles=("workflow_engine",)), "who runs is told")
            await cluster.check_health()
            await late.check_health()
            await own.cql(f"ALTER ROLE perdure WITH PASSWORD = '{own.password}'")
            await starting
        assert await cluster.works("accepted") < RECOVERY_S
        await late.ready()
        late.check_words(own.password)
    cluster.check_words(own.password)


async def test_a_token_that_is_wrong_at_the_start_is_told_with_its_setting(place: Place, tmp_path: Path) -> None:
    wrong = token(place.own.other_key)
    late = Cluster(tmp_path, place.own.environment() | {"PERDURE_PULSAR_TOKEN": wrong}, NAMESPACE, ("timer", "worker"))
    with late.started():
        told = ("Pulsar at 127.0.0.1:", "refuses our token", "PERDURE_PULSAR_TOKEN")
        await until(lambda: late.all_told(*told), "both say why")
        await late.check_health()
        assert (await late.probe("timer", "/readyz"))[0] == 503
        late.check_words(wrong)
