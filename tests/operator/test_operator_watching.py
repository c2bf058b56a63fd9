"""What has resources looked at."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import kopf
import pytest

from perdure_operator import watching
from perdure_operator.connecting import Connections
from perdure_operator.facts import Waiting
from perdure_operator.health import Health
from perdure_operator.objects import Key, Kind, Object, key_of
from perdure_operator.ports import Unavailable
from perdure_operator.watching import Seen, kopf_settings, list_again, registry, waited_for, wake
from perdure_operator.working import Working
from tests.operator.cluster import NAMESPACE
from tests.operator.world import World

pytestmark = pytest.mark.asyncio
WORKER: Object = {"tasks": ["crop", "scale"], "image": "shop:1"}
KEY = Key("Worker", NAMESPACE, "crop")


async def nothing(key: Key) -> float | None:
    return None


def queue() -> Working:
    return Working(nothing, 1, random.Random(1))


def handlers(found: kopf.OperatorRegistry) -> dict[str, Any]:
    return {str(handler.id).rpartition(".")[2]: handler.fn for handler in found._watching.get_all_handlers()}


async def test_events_of_a_status_alone_are_no_news() -> None:
    world, looking, seen = World(), queue(), Seen()
    connections = Connections(world.cluster, lambda *_: world.perdure, lambda: world.now)
    found = handlers(registry(looking, connections, seen, Health(lambda: 0.0)))
    told = []
    for type_, uid, generation in [
        (None, "a", 1), ("MODIFIED", "a", 1), ("MODIFIED", "a", 2), ("DELETED", "a", 2), ("ADDED", "b", 1),
        ("ADDED", "c", 1),
    ]:  # fmt: skip
        looking._wanted.clear()
        metadata = {"namespace": NAMESPACE, "name": "crop", "uid": uid, "generation": generation}
        await found["pool"](type=type_, body={"kind": "Worker", "metadata": metadata})
        told.append(looking.followed() == [KEY])
    assert told == [True, False, True, True, True, True], "the last was made again, and no watch told of the end of b"


async def test_what_is_owned_and_what_is_connected_lead_to_the_resource() -> None:
    world, looking = World(), queue()
    connections = Connections(world.cluster, lambda *_: world.perdure, lambda: world.now)
    found = handlers(registry(looking, connections, Seen(), Health(lambda: 0.0)))
    labels = {"app.kubernetes.io/managed-by": "perdure-operator", "perdure.dev/worker": "crop"}
    await found["owned"](body={"metadata": {"namespace": NAMESPACE, "name": "crop-1", "labels": labels}})
    assert looking.followed() == [KEY]
    looking._wanted[KEY].clear()
    await found["connection"](body={"metadata": {"namespace": NAMESPACE, "name": "default"}})
    assert looking._wanted[KEY].is_set()
    assert key_of({"metadata": {"labels": {"app": "other"}}}) is None


async def test_kopf_is_told_to_write_nothing_and_to_watch_what_is_ours() -> None:
    settings = kopf_settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    selected = {str(key): value for key, value in settings.watching.label_selectors.items()}
    assert len(selected) == 2
    assert set(selected.values()) == {"app.kubernetes.io/managed-by=perdure-operator"}


class Lists:
    """Rounds of lists of Workers, an error among them."""

    def __init__(self, *rounds: Sequence[Object] | Unavailable) -> None:
        self.rounds = list(rounds)
        self.end = asyncio.Event()

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Object]:
        if kind != "Worker":
            return []
        if not self.rounds:
            self.end.set()
            await asyncio.sleep(3_600)
        found = self.rounds.pop(0)
        if isinstance(found, Unavailable):
            raise found
        return found


async def test_a_list_finds_what_no_watch_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LISTED_EVERY_S", 0.0)
    item = {"metadata": {"namespace": NAMESPACE, "name": "crop", "uid": "a", "generation": 4}}
    told: list[int | None] = []
    health = Health(lambda: 0.0)
    monkeypatch.setattr(health, "listed", lambda *, missed: told.append(missed))
    looking, lists = queue(), Lists([item], [item], Unavailable("away"), [])
    listing = asyncio.create_task(list_again(lists, "*", looking, Seen(), health=health))  # type: ignore[arg-type]
    await asyncio.wait_for(lists.end.wait(), 10)
    listing.cancel()
    assert looking.followed() == [KEY]
    assert told == [0, 1, None, 0], "what is found for the first time may just have come"


async def test_a_list_finds_what_is_followed_no_longer_though_a_watch_told_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "LISTED_EVERY_S", 0.0)
    metadata = {"namespace": NAMESPACE, "name": "crop", "uid": "a", "generation": 1}
    told: list[int | None] = []
    health = Health(lambda: 0.0)
    monkeypatch.setattr(health, "listed", lambda *, missed: told.append(missed))
    seen, looking, lists = Seen(), queue(), Lists([{"metadata": metadata}], [{"metadata": metadata}])
    seen.is_news(KEY, metadata)
    listing = asyncio.create_task(list_again(lists, "*", looking, seen, health=health))  # type: ignore[arg-type]
    await asyncio.wait_for(lists.end.wait(), 10)
    listing.cancel()
    assert looking.followed() == [KEY]
    assert told == [0, 0], "the watch is not deaf"


@pytest.mark.parametrize(
    ("kind", "name", "waiting", "expected"),
    [("task", "scale", 1, [KEY]), ("task", "scale", 0, []), ("task", "other", 1, []), ("workflow", "crop", 1, [])],
)
async def test_only_work_for_its_names_wakes_a_pool(kind: Any, name: str, waiting: int, expected: list[Key]) -> None:
    world = World()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.look("Worker", "crop")
    backlog = [Waiting(kind=kind, name=name, build=None, waiting=waiting, in_flight=3)]
    assert waited_for(backlog, world.reconciler.pools.values()) == expected


@pytest.mark.parametrize(
    ("build", "expected"),
    [(None, ["image.resize"]), ("0123456789", ["image", "image.0123456789"]), ("resize.0123456789", ["image.resize"])],
)
async def test_work_for_a_name_with_dots_wakes_whose_it_is(build: str | None, expected: list[str]) -> None:
    """The API tells of the topic as if `image` were the name."""
    world = World()
    names = ["image", "image.resize", "image.0123456789"]
    for number, name in enumerate(names):
        world.cluster.declare("Worker", f"pool{number}", {**WORKER, "tasks": [name]})
        await world.look("Worker", f"pool{number}")
    told = "resize" if build is None else build
    backlog = [Waiting(kind="task", name="image", build=told, waiting=1, in_flight=0)]
    woken = {key.name for key in waited_for(backlog, world.reconciler.pools.values())}
    assert woken == {f"pool{names.index(name)}" for name in expected}


async def test_an_api_that_is_silent_delays_its_own_pools_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WAKING_EVERY_S", 0.0)
    world, looking, silent = World(), queue(), World()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.look("Worker", "crop")
    silent.cluster.declare("Worker", "idle", WORKER)
    await silent.look("Worker", "idle")
    asked = 0

    async def hang() -> Sequence[Waiting]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(3_600)
        return []

    monkeypatch.setattr(silent.perdure, "backlog", hang)
    world.perdure.send("task", "crop", 1)
    waking = asyncio.create_task(wake({**silent.reconciler.pools, **world.reconciler.pools}, looking))
    for _ in range(3):
        looking._wanted.clear()
        await asyncio.sleep(0.01)
        assert looking.followed() == [KEY]
    waking.cancel()
    assert asked == 1, "the next question waits for the answer to the last"


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("a defect")])
async def test_an_api_that_is_away_wakes_nobody_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(watching, "WAKING_EVERY_S", 0.0)
    world, looking = World(), queue()
    world.cluster.declare("Worker", "crop", WORKER)
    await world.look("Worker", "crop")

    async def fail() -> Sequence[Waiting]:
        raise error

    with monkeypatch.context() as away:
        away.setattr(world.perdure, "backlog", fail)
        waking = asyncio.create_task(wake(world.reconciler.pools, looking))
        await asyncio.sleep(0.01)
        assert looking.followed() == []
    world.perdure.send("task", "crop", 1)
    for _ in range(1_000):
        if looking.followed():
            break
        await asyncio.sleep(0.001)
    waking.cancel()
    assert looking.followed() == [KEY]
