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
from perdure_runtime.adapters.cassandra.connection import Connection, connect
from perdure_runtime.adapters.pulsar import PulsarBroker, publisher
from perdure_runtime.adapters.pulsar.admin import open_admin
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import Delivery, Publisher
from perdure_schemas import topics
from perdure_schemas.messages import CancelTimer, Message
from tests.chaos import load as loads
from tests.chaos.audit import Report, audit_effects, audit_runs, audit_timers, marks_of
from tests.chaos.load import Load
from tests.chaos.processes import Cut
from tests.servers import provision
from tests.servers.clean import need_tools
from tests.servers.outages import PATIENCE_S, ROLES, SERVICES, Cluster, until
from tests.servers.own_servers import OwnServers, own_servers, token
from tests.servers.provision import free_port
from tests.servers.replicas import LONG

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1_800)]

DOWN_S = 300.0 if LONG else 15.0
RECOVERY_S = 30.0 if LONG else 180.0
"""From when a server answers until a run that is started then ends. In short no figure: tests share their machine."""
USERS = 6
ACCEPTED_MIN = 12
"""Runs that are there when the outage begins."""
NAMESPACE = "outages"
OUTAGES = ("broker-dies", "store-fills-its-disk", *(("store-dies", "broker-fills-its-disk") if LONG else ()))
"""Cassandra ends itself when its disk is full, so that the short form has its death, too."""
_STORE = ("Cassandra at 127.0.0.1", "cannot be reached", "PERDURE_CASSANDRA_HOSTS")
_BROKER = ("Pulsar at 127.0.0.1:", "cannot be reached", "PERDURE_PULSAR_URL")


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


@dataclass
class Fault:
    begin: Callable[[], Awaitable[None]]
    mend: Callable[[], Awaitable[None]]
    told: tuple[str, ...]
    """Words of the line that tells of it."""


def _fault(own: OwnServers, name: str) -> Fault:
    which = "pulsar" if name.startswith("broker") else "cassandra"
    server = own.pulsar() if which == "pulsar" else own.cassandra()

    async def die() -> None:
        await server.run("kill9")

    async def fill() -> None:
        """A bookie takes no more writes from 95 % on; Cassandra's commit log needs a segment soon, and room for it."""
        used = own.used(which)
        own.resize(which, int(used / 0.97) if which == "pulsar" else used + 256 * 1024)

    async def start() -> None:
        own.resize(which)
        for verb in ("stop", "start", "wait"):
            await server.run(verb)

    async def make_room() -> None:
        own.resize(which)

    match name:
        case "broker-dies":
            return Fault(die, start, _BROKER)
        case "store-dies":
            return Fault(die, start, _STORE)
        case "store-fills-its-disk":
            return Fault(fill, start, _STORE)
        case "broker-fills-its-disk":
            return Fault(fill, make_room, ("Pulsar did not confirm",))
        case _:
            raise AssertionError(name)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_what_was_accepted_before_and_during_an_outage_ends_once_after_it(
    place: Place, outage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """While runs, timers and starts are under way."""
    if "disk" in outage and place.own.no_disks:
        assert not provision.required(), place.own.no_disks
        pytest.skip(place.own.no_disks)
    cluster, fault = place.cluster, _fault(place.own, outage)
    before = {role: len(cluster.reasons(role)) for role in ROLES}
    async with cluster.client() as client:
        place.loads += 1
        load = Load(client, place.loads, USERS, first=10_000 * place.loads)
        running = asyncio.create_task(load.run())
        try:
            await until(lambda: len(load.promises) >= ACCEPTED_MIN, "runs are accepted")
            began = time.monotonic()
            await fault.begin()
            try:
                await until(lambda: _told(cluster, before, fault.told), "a service says what is wrong")
                starting = asyncio.create_task(_start(client, f"during-{outage}"))
                while time.monotonic() < began + DOWN_S:
                    await cluster.check_health()
                    await asyncio.sleep(0.5)
                accepted = len(load.promises)
            finally:
                await fault.mend()  # in any case: the next test has the same servers
            recovery = await cluster.works(f"after-{outage}")
            load.close()
            await asyncio.wait_for(running, 240)
            seen = await asyncio.wait_for(starting, PATIENCE_S)
        finally:
            running.cancel()
            await asyncio.wait([running])
    _check_promises(cluster, load)
    await cluster.check_health()
    cluster.check_words(place.own.password, token(place.own.key))
    with capsys.disabled():
        print(f"\n{outage} for {DOWN_S:.0f} s: {accepted} runs accepted until its end, {len(load.promises)} in all; "
              f"a client was told {seen!r}; a run ends {recovery:.1f} s after it")  # fmt: skip
    assert recovery < RECOVERY_S


def _check_promises(cluster: Cluster, load: Load) -> None:
    """Each run that was accepted has ended once, as it should; no timer was early, nothing ran unasked."""
    report = Report()
    promises, marks = list(load.promises.values()), marks_of(cluster.effects.read_text())
    audit_runs(report, promises)
    audit_effects(report, promises, marks)
    audit_timers(report, promises, marks)
    assert not report.violations


def _told(cluster: Cluster, before: dict[str, int], words: tuple[str, ...], *roles: str) -> bool:
    """Whether one of them has said all of this since; of the services, if none is named."""
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


async def test_a_broker_that_dies_before_it_confirms_the_first_message_of_a_producer_gets_all_of_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for duplicates; and the library, which sends again what was not confirmed, would make some."""
    monkeypatch.setattr(publisher, "_SEND_TIMEOUT_MS", 600_000)
    monkeypatch.setattr(publisher, "_OVERDUE_S", 600.0)
    topic, server = topics.task_run("nobody"), place.own.pulsar()
    broker = PulsarBroker(place.own.pulsar_settings())
    try:
        ours = broker.publisher()
        await ours._producers.get(NAMESPACE, topic)
        await server.run("kill9")
        unconfirmed = asyncio.create_task(ours.publish([(topic, _message(id)) for id in "abc"]))
        for verb in ("start", "wait"):
            await server.run(verb)
        await asyncio.wait_for(unconfirmed, PATIENCE_S)
        await ours.publish([(topic, _message(id)) for id in "def"])
        async with open_admin(place.own.pulsar_settings()) as admin:
            assert await admin.backlog(NAMESPACE, topic, "workers") == 6
    finally:
        await broker.close()


async def test_what_a_broker_with_a_full_disk_does_not_confirm_fails_in_time_and_is_not_sent_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection away at every message, and the library begins its time-out anew at every connection."""
    if place.own.no_disks:
        assert not provision.required(), place.own.no_disks
        pytest.skip(place.own.no_disks)
    monkeypatch.setattr(publisher, "_SEND_TIMEOUT_MS", 3_000)
    monkeypatch.setattr(publisher, "_OVERDUE_S", 4.0)
    topic, fault = topics.task_run("nobody-too"), _fault(place.own, "broker-fills-its-disk")
    broker = PulsarBroker(place.own.pulsar_settings())
    try:
        ours, confirmed = broker.publisher(), 0
        await _until_published(ours, topic, "first")  # the broker may just have come back from the test before
        await fault.begin()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while await _published(ours, topic, f"more-{confirmed}"):  # it looks at its disk now and then
                    confirmed += 1
        finally:
            await fault.mend()
        await _until_published(ours, topic, "last")
        async with open_admin(place.own.pulsar_settings()) as admin:
            there = await _ids(broker, topic, await admin.backlog(NAMESPACE, topic, "workers"))
        assert there == {"first", *(f"more-{number}" for number in range(confirmed)), "last"}
    finally:
        await broker.close()


async def _ids(broker: PulsarBroker, topic: str, count: int) -> set[str]:
    consumer, found = await broker.subscribe(NAMESPACE, [topic], "workers", "shared"), list[str]()
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found += [each.message.id for each in await consumer.receive() if isinstance(each, Delivery)]
    return set(found)


async def _until_published(ours: Publisher, topic: str, id: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await _published(ours, topic, id):
            pass


async def _published(ours: Publisher, topic: str, id: str) -> bool:
    try:
        await ours.publish([(topic, _message(id))])
    except StorageUnavailable:
        return False
    return True


def _message(id: str) -> Message:
    return Message(id=id, namespace=NAMESPACE, key="k", at=1, body=CancelTimer(timer_id=id))


async def test_a_node_that_has_too_much_to_do_is_an_outage_and_no_fault_of_what_was_asked(place: Place) -> None:
    """It says so, among others, of a password that is changed twice within five seconds."""
    await place.own.cql("CREATE ROLE IF NOT EXISTS hasty WITH PASSWORD = 'first'")
    connection = await connect(place.own.cassandra_settings(), None)
    try:
        with pytest.raises(StorageUnavailable, match="cannot work now"):
            await _change_often(connection)
    finally:
        await connection.close()


async def _change_often(connection: Connection) -> None:
    for number in range(100):
        await connection.run(f"ALTER ROLE hasty WITH PASSWORD = 'number-{number}'")


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
    async with cluster.client() as client:
        with late.started():
            starting = asyncio.create_task(_start(client, "meanwhile"))  # so that an engine needs its store
            try:
                await until(lambda: cluster.all_told(*told, roles=("workflow_engine",)), "who runs is told")
                await until(lambda: late.all_told(*told), "who starts is told")
                await cluster.check_health()
                await late.check_health()
            finally:
                await own.cql(f"ALTER ROLE perdure WITH PASSWORD = '{own.password}'")
            await asyncio.wait_for(starting, PATIENCE_S)
            await late.ready()
            late.check_words(own.password)
    assert await cluster.works("accepted") < RECOVERY_S
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


if LONG:  # the broker starts twice

    async def test_a_token_that_the_broker_no_longer_takes_is_told_and_needs_no_restart_once_it_does(
        place: Place,
    ) -> None:
        """The broker is restarted with another key, and later with the one that signed our token."""
        own, cluster = place.own, place.cluster
        told = ("Pulsar at 127.0.0.1:", "refuses our token", "PERDURE_PULSAR_TOKEN")
        before = {role: len(cluster.reasons(role)) for role in ROLES}

        async def restart(key: bytes) -> None:
            broker = own.pulsar(key)
            for verb in ("stop", "start", "wait"):
                await broker.run(verb)

        await restart(own.other_key)
        await until(lambda: all(_told(cluster, before, told, role) for role in ROLES), "all say why")
        await cluster.check_health()
        await restart(own.key)
        assert await cluster.works("taken-again") < RECOVERY_S
        await cluster.check_health()
        cluster.check_words(token(own.key))
