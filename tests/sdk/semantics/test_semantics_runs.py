"""Rows of the acceptance checklist on runs: signals, ids, tags, memo, context, starts, arguments and errors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from perdure import (
    AlreadyStarted,
    Channel,
    ChildFailed,
    Client,
    CommandFailed,
    PayloadTooLarge,
    PerdureError,
    RemoteError,
    RunFailed,
    RunNotFound,
    SerializationError,
    TaskFailed,
    TaskTimedOut,
    WorkflowError,
    info,
    set_attributes,
    signal,
    task,
    workflow,
)
from perdure_runtime.ports import RunFilter
from perdure_schemas.common import Failure
from perdure_schemas.events import SignalReceived, Started
from tests.sdk.semantics.world import Gate, World, events

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}


@task
async def passing() -> str:
    await GATES["passing"].passed()
    return "passed"


@dataclass
class Approval:
    by: str
    amount: int


@workflow
class Purchase:
    approvals: Channel[Approval] = Channel()
    notes: Channel[str] = Channel()

    async def run(self, needed: int) -> list[str]:
        await passing()
        names = [(await self.approvals.receive(where=lambda a: a.amount > 10)).by for _ in range(needed)]
        return [*names, await self.notes.receive()]


# --- signals --------------------------------------------------------------------------------------------


async def test_signals_are_typed_by_their_channel() -> None:
    """Row E-17: what is not of the type is refused where it is sent; the run gets an object of the type."""
    gate = GATES["passing"] = Gate()
    gate.open()
    async with World(passing, Purchase) as world:
        run = await world.client.start(Purchase, 1)
        wrong: Any = "not an approval"
        with pytest.raises(SerializationError, match="approvals"):
            await run.signal(Purchase.approvals, wrong)
        await run.signal(Purchase.approvals, Approval("ada", 50))
        await run.signal("notes", "by name")
        assert await run.result() == ["ada", "by name"]


async def test_signals_wait_until_they_are_received() -> None:
    """Row E-17: they come before anybody receives, in another order, and a worker dies in between."""
    gate = GATES["passing"] = Gate()
    async with World(passing, Purchase) as world:
        run = await world.client.start(Purchase, 2)
        await gate.reached()
        await run.signal(Purchase.notes, "early")
        for by, amount in [("ada", 50), ("bob", 5), ("cid", 60)]:
            await run.signal(Purchase.approvals, Approval(by, amount))
        await world.restart_worker()
        gate.open()
        assert await run.result() == ["ada", "cid", "early"]


async def test_signals_of_one_sender_keep_their_order() -> None:
    """Row E-17."""
    async with World(listing) as world:
        run = await world.client.start(listing, 50)
        for n in range(50):
            await run.signal("numbers", n)
        assert await run.result() == list(range(50))
        assert [signal.number for signal in events(await run.history(), SignalReceived)] == list(range(1, 51))


numbers: Channel[int] = Channel("numbers", int)


@workflow
async def listing(count: int) -> list[int]:
    return [await numbers.receive() for _ in range(count)]


@workflow
async def sending(to: str, count: int) -> None:
    for n in range(count):
        signal(to, "numbers", n)


async def test_one_run_signals_another() -> None:
    """Row E-17."""
    async with asyncio.timeout(60), Client.embedded(listing, sending) as client:
        run = await client.start(listing, 3, id="receiver")
        await client.execute(sending, "receiver", 3)
        assert await run.result() == [0, 1, 2]


# --- how a run is started -----------------------------------------------------------------------------------


@workflow
async def who() -> dict[str, Any]:
    about = info()
    return {
        "namespace": about.namespace,
        "id": about.workflow_id,
        "run": about.run_id,
        "name": about.name,
        "tags": list(about.tags),
        "parent": about.parent.workflow_id if about.parent else None,
        "generation": about.generation,
    }


@workflow
async def who_child() -> dict[str, Any]:
    return await who.options(id="child", tags=["inner"])()


async def test_runs_are_found_by_their_tags() -> None:
    """Row E-21."""
    async with World(who) as world:
        client = world.client
        for number, tags in enumerate([["red"], ["red", "large"], []]):
            await client.execute(who.options(id=f"r{number}", tags=tags))
        await world.quiet()
        for tag, ids in {"red": {"r0", "r1"}, "large": {"r1"}, "blue": set[str]()}.items():
            page = await client.list(RunFilter(tag=tag))
            assert {found.workflow_id for found in page.runs} == ids


async def test_a_race_of_a_hundred_starts_under_one_id_makes_one_run() -> None:
    """Row E-22."""
    GATES["passing"] = gate = Gate()
    async with World(passing, waiting) as world:
        starts = [world.client.start(waiting, id="one") for _ in range(100)]
        results = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(isinstance(result, AlreadyStarted) for result in results) == 99
        (run,) = [result for result in results if not isinstance(result, BaseException)]
        same = [world.client.start(waiting, id="one", conflict="use-existing") for _ in range(100)]
        assert {handle.run_id for handle in await asyncio.gather(*same)} == {run.run_id}
        gate.open()
        assert await run.result() == "passed"


@workflow
async def waiting() -> str:
    return await passing()


@workflow
async def coloured() -> None:
    set_attributes(colour="blue")


async def test_a_run_carries_what_people_wrote_on_it() -> None:
    """Row E-23: a memo, kept with its start; attributes, to be searched for and changed by the run."""
    async with World(coloured) as world:
        run = await world.client.start(coloured, attributes={"colour": "red"}, memo={"ticket": 17})
        await run.result()
        await world.quiet()
        (start,) = events(await run.history(), Started)
        assert start.options.memo is not None
        assert start.options.memo.data == b'{"ticket":17}'
        found = await world.client.list(RunFilter(attribute=("colour", "blue")))
        assert [each.workflow_id for each in found.runs] == [run.id]
        assert not (await world.client.list(RunFilter(attribute=("colour", "red")))).runs


async def test_a_run_knows_who_it_is() -> None:
    """Row E-24."""
    async with Client.embedded(who, who_child) as client:
        run = await client.start(who, id="w-1", tags=["red"])
        about = await run.result()
        assert about == {
            "namespace": "default",
            "id": "w-1",
            "run": run.run_id,
            "name": "who",
            "tags": ["red"],
            "parent": None,
            "generation": 0,
        }
        inner = await client.execute(who_child, id="w-2")
        assert (inner["id"], inner["tags"], inner["parent"]) == ("child", ["inner"], "w-2")


async def test_a_start_gives_an_id_to_come_back_with() -> None:
    """Row E-52: of the run and of the workflow, made up unless given."""
    async with Client.embedded(who) as client:
        made_up = await client.start(who)
        chosen = await client.start(who, id="order-7")
        assert made_up.id
        assert made_up.id != chosen.id
        assert chosen.id == "order-7"
        assert (await client.handle(who, "order-7").result())["run"] == chosen.run_id
        assert (await client.handle(made_up.id).result())["run"] == made_up.run_id
        with pytest.raises(RunNotFound):
            await client.handle("nobody").result()


# --- arguments and errors -----------------------------------------------------------------------------------


@dataclass
class Order:
    sku: str
    count: int


@task
async def count_of(order: Order) -> int:
    return order.count


@workflow
async def ordering(order: Order, note: str = "") -> int:
    return await count_of(order)


async def test_arguments_are_checked_where_they_are_given() -> None:
    """Row E-60: by their types, before anything is sent."""
    async with World(count_of, ordering) as world:
        client = world.client
        wrong: list[Any] = ["not an order", {"sku": "a", "count": "many"}, object(), lambda: 1]
        before = len(world.spy.published)
        for bad in wrong:
            with pytest.raises(SerializationError, match="order"):
                await client.start(ordering, bad)
            with pytest.raises(SerializationError, match="order"):
                await client.run(count_of, bad)
        with pytest.raises(PayloadTooLarge):
            await client.start(ordering, Order("x" * 50_000_000, 1))
        assert not [message for topic, message in world.spy.published[before:] if topic != "worker-hello"]
        assert await client.execute(ordering, Order("a", 3)) == 3


@task
async def failing(kind: str) -> None:
    try:
        raise KeyError(kind)
    except KeyError as error:
        raise LookupError("nothing there") from error


@workflow
async def failing_child() -> None:
    await failing("deep")


@workflow
async def failing_parent() -> None:
    await failing_child()


async def test_an_error_tells_its_causes_all_the_way_down() -> None:
    """Row E-61: through a task, a child and a parent, named as their languages name them."""
    async with asyncio.timeout(60), Client.embedded(failing, failing_child, failing_parent) as client:
        with pytest.raises(RunFailed) as raised:
            await client.execute(failing_parent)
        names = []
        failure: Failure | None = raised.value.failure
        while failure is not None:
            names.append(failure.name)
            failure = failure.cause
        assert names == ["ChildFailed", "TaskFailed", "LookupError", "KeyError"]
        cause: BaseException | None = raised.value
        while cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        assert isinstance(cause, RemoteError)
        assert (cause.name, cause.message) == ("KeyError", "'deep'")
        assert "raise KeyError(kind)" in cause.stack


async def test_errors_have_one_root_and_are_caught_by_what_they_mean() -> None:
    """Row E-61."""
    assert issubclass(TaskTimedOut, TaskFailed)
    assert issubclass(TaskFailed, CommandFailed)
    assert issubclass(ChildFailed, CommandFailed)
    assert issubclass(CommandFailed, WorkflowError), "let out, it fails the run"
    assert issubclass(WorkflowError, PerdureError)
    assert not issubclass(RunFailed, WorkflowError), "that is raised to clients, not in workflows"
