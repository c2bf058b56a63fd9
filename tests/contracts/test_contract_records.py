"""What every store of tasks, timers, lists and routing must do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from perdure_core.workflow_engine.decisions import RunDefaults
from perdure_runtime.adapters.retention import FORGOTTEN_KEPT_MS
from perdure_runtime.errors import InvalidCursor
from perdure_runtime.ports import BuildCounts, Ports, Routing, RunFilter
from perdure_schemas.common import Address, Payload, WorkflowRef
from perdure_schemas.events import RunStatus
from perdure_schemas.messages import CancelTimer, RunChanged, ScheduleTimer, TaskChanged, TimerFired
from tests.contracts.worlds import Scenario, SteppedClock


def test_task_records_compare_and_set(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        tasks = ports.tasks
        assert await tasks.load("ns", "t") == (0, None)
        won = await asyncio.gather(tasks.save("ns", "t", 0, b"a"), tasks.save("ns", "t", 0, b"b"))
        assert sorted(won) == [False, True]
        assert await tasks.load("ns", "t") == (1, b"a" if won[0] else b"b")
        assert await tasks.save("ns", "t", 1, b"c", ttl_ms=1000)
        assert await tasks.load("ns", "t") == (2, b"c")
        clock.time += 1001
        assert await tasks.load("ns", "t") == (0, None)
        assert await tasks.save("ns", "t", 0, b"d")
        assert await tasks.load("ns", "t") == (1, b"d")

    run(scenario)


def timer(id: str, due_at: int) -> ScheduleTimer:
    fires = TimerFired(workflow_id="w", run_id="r", kind="command", command_id=id, due_at=due_at)
    return ScheduleTimer(
        timer_id=id, due_at=due_at, target=Address("workflow-engine", "w"), fires=fires, message_id=f"m{id}"
    )


def test_timers_in_due_order(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        timers = ports.timers
        again = await timers.next_due("ns", 1)
        assert again is None or again > clock.time, "nothing is due; it may want to be asked again later"
        now = clock.time
        await timers.put("ns", 1, [timer("c", now + 30), timer("a", now + 10), timer("b", now + 20)])
        await timers.put("ns", 2, [timer("z", now + 1)])
        await timers.put("ns", 1, [timer("c", now + 15)])
        assert list(await timers.due("ns", 1, now, 10)) == []
        clock.time += 20
        first, second, third = timer("a", now + 10), timer("c", now + 15), timer("b", now + 20)
        assert list(await timers.due("ns", 1, now + 20, 10)) == [first, second, third]
        assert list(await timers.due("ns", 1, now + 19, 1)) == [first]
        await timers.remove("ns", 1, ["a", "never"])
        assert await timers.next_due("ns", 1) == now + 15

    run(scenario)


def test_a_timer_stored_again_or_removed_does_not_come_at_its_old_time(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        timers, now = ports.timers, clock.time
        await timers.put("ns", 1, [timer(name, now + 10) for name in ("a", "b", "c", "d")])
        await timers.put("ns", 1, [timer("a", now + 30), timer("b", now + 5)])
        await timers.remove("ns", 1, ["c"])
        clock.time += 20
        assert list(await timers.due("ns", 1, clock.time, 10)) == [timer("b", now + 5), timer("d", now + 10)]
        await timers.remove("ns", 1, ["d"])  # b could not be published
        assert list(await timers.due("ns", 1, clock.time, 10)) == [timer("b", now + 5)]
        await timers.remove("ns", 1, ["b"])
        assert list(await timers.due("ns", 1, clock.time, 10)) == []
        assert await timers.next_due("ns", 1) == now + 30
        clock.time += 20
        await timers.put("ns", 1, [timer("d", now + 10)])
        assert {each.timer_id for each in await timers.due("ns", 1, clock.time, 10)} == {"a", "d"}

    run(scenario)


def test_a_canceled_timer_does_not_fire_whether_it_is_told_when_it_would(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        timers, now = ports.timers, clock.time
        far = now + 400 * 86_400_000
        await timers.put("ns", 1, [timer("near", now + 10), timer("far", far), timer("other", far), timer("told", far)])
        await timers.cancel("ns", 1, [CancelTimer(timer_id="near"), CancelTimer(timer_id="far")])
        await timers.cancel("ns", 1, [CancelTimer(timer_id=id, due_at=far) for id in ("told", "never")])
        clock.time = far
        assert list(await timers.due("ns", 1, far, 10)) == [timer("other", far)]
        await timers.put("ns", 1, [timer("told", far)])
        assert {each.timer_id for each in await timers.due("ns", 1, clock.time + 1, 10)} == {"other", "told"}

    run(scenario)


def test_timers_that_are_all_over_hide_none_that_comes_after(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        timers, now = ports.timers, clock.time
        names = [f"t{number}" for number in range(9)]
        await timers.put("ns", 1, [timer(name, now + 10) for name in names])
        await timers.put("ns", 1, [timer(name, now + 20) for name in names[:5]])
        await timers.remove("ns", 1, names[5:])
        await timers.put("ns", 1, [timer("z", now + 11)])
        clock.time += 15
        assert list(await timers.due("ns", 1, clock.time, 3)) == [timer("z", now + 11)]

    run(scenario)


def changed(id: str, version: int, status: RunStatus = "running", started_at: int = 1) -> RunChanged:
    return RunChanged(
        workflow_id=id, run_id=f"{id}-run", name="order", version=version, status=status, generation=0,
        started_at=started_at, changed_at=version, tags=["vip"] if id == "a" else ["vipers"],
        attributes=Payload("json", b'{"city": "Bonn", "floor": 3}') if id == "a" else None,
        waits_for="task charge (3)" if id == "a" else "",
    )  # fmt: skip


def test_old_changes_change_nothing_and_counts_are_exact(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        model = ports.read_model
        await model.apply([("ns", changed("a", 1)), ("ns", changed("b", 1)), ("ns", changed("a", 3, "completed"))])
        await model.apply([("ns", changed("a", 2, "stuck")), ("ns", changed("a", 3, "failed"))])
        assert await model.counts("ns") == {"order": {"completed": 1, "running": 1}}
        run = await model.get_run("ns", "a", None)
        assert run is not None
        assert run.status == "completed"
        await model.forget("ns", "b", "b-run")
        assert await model.counts("ns") == {"order": {"completed": 1}}
        assert await model.get_run("ns", "b", "b-run") is None

    run(scenario)


def on_build(build: str | None, change: RunChanged) -> RunChanged:
    return msgspec.structs.replace(change, build=build)


def test_runs_are_counted_by_build(run: Callable[[Scenario], None]) -> None:
    def count(build: str | None, name: str = "order", **counts: int) -> BuildCounts:
        return BuildCounts(name=name, build=build, counts=counts)

    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        model = ports.read_model
        other = msgspec.structs.replace(changed("d", 1), name="pack")
        first = [*(on_build("1", changed(name, 1)) for name in "abc"), on_build("a b.2", other), changed("e", 1)]
        await model.apply([("ns", change) for change in first])
        await model.apply([("else", on_build("9", changed("a", 1)))])
        found = [count(None, running=1), count("1", running=3), count("a b.2", "pack", running=1)]
        assert list(await model.builds("ns")) == found
        await model.apply([("ns", on_build("2", changed("a", 2))), ("ns", on_build("1", changed("b", 2, "completed")))])
        await model.apply([("ns", on_build("3", changed("a", 1))), ("ns", on_build("2", changed("a", 2)))])
        await model.apply([("ns", changed("e", 2, "stuck"))])
        found = [count(None, stuck=1), count("1", completed=1, running=1), count("2", running=1), found[2]]
        assert list(await model.builds("ns")) == found
        for name in "cd":
            await model.forget("ns", name, f"{name}-run")
        assert list(await model.builds("ns")) == [count(None, stuck=1), count("1", completed=1), count("2", running=1)]
        assert await model.counts("ns") == {"order": {"stuck": 1, "completed": 1, "running": 1}}

    run(scenario)


def test_a_change_that_comes_after_its_run_was_forgotten_changes_nothing(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        model = ports.read_model
        of_a, of_b = WorkflowRef("a", "a-run", "order"), WorkflowRef("b", "b-run", "order")
        task = TaskChanged(task_id="t", name="charge", version=9, status="running", attempt=1, at=1, workflow=of_a)
        other = msgspec.structs.replace(task, task_id="u", workflow=of_b)
        await model.apply([("ns", changed("a", 1)), ("ns", changed("b", 1))])
        await model.forget("ns", "a", "a-run")
        await model.forget("ns", "never seen", "never seen-run")
        late: list[RunChanged | TaskChanged] = [changed("a", 2, "completed"), changed("never seen", 1), task, other]
        for _ in range(2):
            await model.apply([("ns", change) for change in late])
        assert [run.workflow_id for run in (await model.list_runs("ns", RunFilter(), 10, None)).runs] == ["b"]
        assert await model.counts("ns") == {"order": {"running": 1}}
        assert list(await model.list_tasks("ns", "a", "a-run")) == []
        assert list(await model.list_tasks("ns", "b", "b-run")) == [other]
        await model.apply([("ns", msgspec.structs.replace(changed("a", 1), run_id="next")), ("else", changed("a", 1))])
        assert await model.get_run("ns", "a", None) is not None, "another run of the id"
        assert await model.get_run("else", "a", "a-run") is not None, "another namespace"

    run(scenario)


@pytest.mark.parametrize("run", ["memory", "sqlite"], indirect=True)  # Cassandra's own clock ends a time to live there
def test_that_a_run_was_forgotten_is_forgotten_in_the_end(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        model = ports.read_model
        await model.forget("ns", "a", "a-run")
        clock.time += FORGOTTEN_KEPT_MS - 1
        await model.forget("ns", "b", "b-run")
        await model.apply([("ns", changed("a", 1))])
        assert await model.get_run("ns", "a", None) is None
        clock.time += 1
        await model.forget("ns", "c", "c-run")
        await model.apply([("ns", changed(id, 1)) for id in ("a", "b", "c")])
        found = [id for id in ("a", "b", "c") if await model.get_run("ns", id, None) is not None]
        assert found == ["a"]

    run(scenario)


def test_runs_are_listed_newest_first_in_pages(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        model = ports.read_model
        await model.apply([("ns", changed(str(number), 1, started_at=number // 2)) for number in range(7)])
        listed: list[str] = []
        cursor: str | None = None
        pages = 0
        while pages == 0 or cursor is not None:
            page = await model.list_runs("ns", RunFilter(), 3, cursor)
            listed += [run.workflow_id for run in page.runs]
            cursor = page.cursor
            pages += 1
        assert listed == ["6", "5", "4", "3", "2", "1", "0"]
        assert pages == 3

    run(scenario)


@pytest.mark.parametrize(
    "cursor",
    ["garbage", "AAAA", "", ".", "1.", "1.2.3", "1.x", "9" * 5_000 + ".1", "[]", '["a",1,2]', f'[{2**64},"a","b"]'],
)
def test_a_cursor_that_no_page_has_given_is_refused(run: Callable[[Scenario], None], cursor: str) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        await ports.read_model.apply([("ns", changed("a", 1))])
        with pytest.raises(InvalidCursor, match="is the cursor of no page") as raised:
            await ports.read_model.list_runs("ns", RunFilter(), 3, cursor)
        assert isinstance(raised.value, ValueError)

    run(scenario)


@pytest.mark.parametrize(
    "where",
    [
        RunFilter(tag="vip"),
        RunFilter(attribute=("city", "Bonn")),
        RunFilter(attribute=("floor", "3")),
        RunFilter(waits_for="task charge"),
        RunFilter(workflow_id="a", name="order", status="running"),
        RunFilter(started_from=10, started_before=11),
    ],
)
def test_filters(run: Callable[[Scenario], None], where: RunFilter) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        await ports.read_model.apply([("ns", changed("a", 1, started_at=10)), ("ns", changed("b", 1, started_at=11))])
        page = await ports.read_model.list_runs("ns", where, 10, None)
        assert [run.workflow_id for run in page.runs] == ["a"]

    run(scenario)


def test_tasks_of_a_run(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        ref = WorkflowRef("w", "r", "order")
        task = TaskChanged(task_id="t", name="charge", version=2, status="running", attempt=1, at=1, workflow=ref)
        stale = msgspec.structs.replace(task, version=1, status="queued")
        alone = msgspec.structs.replace(task, task_id="alone", workflow=None)
        await ports.read_model.apply([("ns", task), ("ns", stale), ("ns", alone)])
        assert list(await ports.read_model.list_tasks("ns", "w", "r")) == [task]

    run(scenario)


def test_routing(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        assert await ports.routing.get("ns", "order") == Routing()
        routing = Routing(current="b1", ramping="b2", ramping_percent=10)
        await ports.routing.put("ns", "order", routing)
        assert await ports.routing.get("ns", "order") == routing
        for defaults in (RunDefaults(run_timeout_ms=1), RunDefaults(retention_ms=2**40), RunDefaults()):
            routing = Routing(current="b1", defaults=defaults)
            await ports.routing.put("ns", "order", routing)
            assert await ports.routing.get("ns", "order") == routing
            assert await ports.routing.get("ns", "other") == await ports.routing.get("elsewhere", "order") == Routing()

    run(scenario)
