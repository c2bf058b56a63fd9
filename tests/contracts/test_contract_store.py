"""What every store of workflow state must do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from perdure_core.task_engine.authority import Mark
from perdure_runtime.adapters.memory.store import MemoryStore
from perdure_runtime.ports import NO_HEAD, Commit, Head, Ports, RunKey, vacant_head
from perdure_schemas.common import Command, WaitsFor
from perdure_schemas.events import CancelRequested, CommandSettled, Event, Recorded, Rewound, RunEnded, TurnCommitted
from tests.contracts.worlds import Scenario, SteppedClock

KEY = RunKey("ns", "w")


def events(first: int, last: int, cause: str = "m") -> list[Recorded]:
    return [
        Recorded(seq=seq, at=seq, cause=f"{cause}{seq}", event=CancelRequested(reason=str(seq), actor=""))
        for seq in range(first, last + 1)
    ]


def commit(  # noqa: PLR0917 a table of values
    expected: int,
    run_id: str,
    first: int,
    last: int,
    cause: str = "m",
    ttl: int | None = None,
    *,
    after: str | None = None,
    runs: int = 1,
    blind: bool = False,
) -> Commit:
    """`after`: the run before, where it is another."""
    head = Head(version=expected + 1, run_id=run_id, seq=last, runs=runs)
    if after is None:
        after = run_id if expected else ""
    return Commit(
        key=KEY, expected_version=expected, expected_run=after, head=head, events=events(first, last, cause),
        commit_id=f"{run_id}{expected}", unborn_ttl_ms=ttl, blind=blind,
    )  # fmt: skip


def test_one_of_two_wins(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        assert (await store.load(KEY))[0] == NO_HEAD
        results = await asyncio.gather(store.commit(commit(0, "r", 1, 2, "a")), store.commit(commit(0, "r", 1, 2, "b")))
        assert sorted(results) == [False, True]
        assert await store.commit(commit(1, "r", 3, 3)) is True
        assert await store.commit(commit(1, "r", 3, 3)) is False
        head, history = await store.load(KEY)
        assert head == Head(version=2, run_id="r", seq=3, runs=1)
        assert [*history] == [*events(1, 2, "a" if results[0] else "b"), *events(3, 3)]
        assert (await store.head(KEY)).version == 2
        assert (await store.head(RunKey("other", "w"))).version == 0

    run(scenario)


def test_history_in_pages(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        for version, (first, last) in enumerate([(1, 3), (4, 4), (5, 9)]):
            await store.commit(commit(version, "r", first, last))
        assert list(await store.history(KEY, "r", 0, 9, 100)) == events(1, 9)
        assert list(await store.history(KEY, "r", 1, 6, 100)) == events(2, 6)
        assert list(await store.history(KEY, "r", 3, 9, 2)) == events(4, 5)
        assert list(await store.history(KEY, "r", 9, 9, 2)) == []
        assert list(await store.history(KEY, "none", 0, 9, 2)) == []

    run(scenario)


def test_a_page_of_a_history_is_bounded_by_its_bytes_but_never_empty(run: Callable[[Scenario], None]) -> None:
    """Pages of which each begins where the one before ended are the whole history."""

    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        large = [
            msgspec.structs.replace(event, event=CancelRequested(reason="x" * 10_000, actor=""))
            for event in events(1, 40)
        ]
        for index, event in enumerate(large):
            await ports.store.commit(msgspec.structs.replace(commit(index, "r", index + 1, index + 1), events=[event]))
        pages, seen = [], 0
        while page := await ports.store.history(KEY, "r", seen, 40, 100, bytes_max=25_000):
            pages.append(list(page))
            seen = page[-1].seq
        assert [event for page in pages for event in page] == large
        assert list(await ports.store.history(KEY, "r", 3, 40, 100, bytes_max=1))[:1] == large[3:4]
        if not isinstance(ports.store, MemoryStore):  # which has nothing to read
            assert max(map(len, pages)) < 40

    run(scenario)


def test_causes_are_found_in_every_run_until_it_is_purged(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        await store.commit(commit(0, "r1", 1, 2, "a"))
        await store.commit(commit(1, "r2", 1, 1, "b", after="r1"))
        assert await store.find_cause(KEY, "a2") == ("r1", 2)
        assert await store.find_cause(KEY, "b1") == ("r2", 1)
        assert await store.find_cause(KEY, "c") is None
        assert list(await store.history(KEY, "r1", 0, 9, 9)) == events(1, 2, "a")
        assert await store.purge(KEY, "r1", 1, 1000) is False
        assert not await store.tombstone(KEY, "r1")
        assert await store.purge(KEY, "r1", 2, 1000) is True
        assert await store.find_cause(KEY, "a2") is None
        assert list(await store.history(KEY, "r1", 0, 9, 9)) == []
        assert (await store.load(KEY))[0].run_id == "r2"
        assert await store.tombstone(KEY, "r1")
        clock.time += 1001
        assert not await store.tombstone(KEY, "r1")

    run(scenario)


def test_purging_the_current_run_forgets_the_head(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        await store.commit(commit(0, "r1", 1, 1, "a"))
        await store.commit(commit(1, "r2", 1, 1, "b", after="r1", runs=2))
        assert await store.purge(KEY, "r2", 2, 1000)
        head, history = await store.load(KEY)
        assert (head, [*history]) == (vacant_head(2), [])
        assert (await store.head(KEY)).version == 0
        assert await store.find_cause(KEY, "a1") == ("r1", 1)
        assert await store.find_cause(KEY, "b1") is None
        assert await store.commit(commit(0, "r3", 1, 1, "c", runs=3))
        head, history = await store.load(KEY)
        assert (head.runs, *history) == (3, *events(1, 1, "c"))
        assert await store.find_cause(KEY, "a1") == ("r1", 1)

    run(scenario)


@pytest.mark.parametrize("order", [("r1", "r2"), ("r2", "r1")])
def test_the_head_goes_with_the_last_of_the_runs(run: Callable[[Scenario], None], order: tuple[str, str]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        await store.commit(commit(0, "r1", 1, 1, "a"))
        await store.commit(commit(1, "r2", 1, 1, "b", after="r1", runs=2))
        for run_id in order:
            assert await store.purge(KEY, run_id, (await store.head(KEY)).version, 1000)
        head, history = await store.load(KEY)
        assert (head, [*history]) == (NO_HEAD, [])
        assert await store.commit(commit(0, "r3", 1, 1, "c"))

    run(scenario)


def test_a_blind_commit_is_recorded_only_where_nothing_is_known(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        assert await store.commit(commit(0, "r1", 1, 1, "a", blind=True))
        assert not await store.commit(commit(0, "r2", 1, 1, "b", blind=True)), "there is a run"
        assert await store.commit(commit(1, "r2", 1, 1, "b", after="r1", runs=2))
        assert await store.purge(KEY, "r2", 2, 1000)
        assert not await store.commit(commit(0, "r3", 1, 1, "c", blind=True)), "an earlier run is kept"
        assert await store.purge(KEY, "r1", 0, 1000)
        assert (await store.load(KEY))[0] == NO_HEAD
        assert not await store.commit(commit(0, "r2", 1, 1, "c", blind=True)), "runs were purged lately"
        assert await store.tombstone(KEY, "r2")
        assert await store.commit(commit(0, "r3", 1, 1, "c"))

    run(scenario)


def test_an_unborn_row_after_a_purge_takes_none_of_the_earlier_runs_along(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        await store.commit(commit(0, "r1", 1, 1, "a"))
        await store.commit(commit(1, "r2", 1, 1, "b", after="r1", runs=2))
        assert await store.purge(KEY, "r2", 2, 1_000_000)
        assert await store.commit(commit(0, "", 1, 1, "signal", ttl=1000, runs=2))
        clock.time += 1001
        head, history = await store.load(KEY)
        assert (head, [*history]) == (vacant_head(2), [])
        assert await store.find_cause(KEY, "a1") == ("r1", 1)
        assert await store.find_cause(KEY, "signal1") is None
        assert [*await store.history(KEY, "r1", 0, 9, 9)] == events(1, 1, "a")
        assert await store.commit(commit(0, "r3", 1, 1, "c", runs=3))
        assert (await store.load(KEY))[0].run_id == "r3"
        assert await store.purge(KEY, "r1", 1, 1000)
        assert (await store.load(KEY))[0].run_id == "r3"

    run(scenario)


def test_a_commit_that_slept_through_a_purge_loses_against_a_new_run(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        await store.commit(commit(0, "old", 1, 1, "a"))
        await store.commit(commit(1, "old", 2, 2, "a"))
        assert await store.purge(KEY, "old", 2, 1000)
        await store.commit(commit(0, "new", 1, 1, "b"))
        await store.commit(commit(1, "new", 2, 2, "b"))
        assert await store.commit(commit(2, "old", 3, 3, "a")) is False, "of the same version, but of another run"
        head, history = await store.load(KEY)
        assert (head.run_id, list(history)) == ("new", events(1, 2, "b"))

    run(scenario)


def test_an_unborn_row_vanishes_or_is_born(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        await store.commit(commit(0, "", 1, 2, "signal", ttl=1000))
        assert (await store.head(KEY)).version == 1
        clock.time += 1001
        assert (await store.head(KEY)).version == 0
        assert await store.find_cause(KEY, "signal1") is None
        await store.commit(commit(0, "", 1, 2, "signal", ttl=1000))
        await store.commit(commit(1, "r", 1, 3, "start", after=""))
        clock.time += 1001
        head, history = await store.load(KEY)
        assert (head.version, list(history)) == (2, events(1, 3, "start"))
        assert await store.find_cause(KEY, "signal2") == ("r", 2), "a signal that came again is not recorded again"

    run(scenario)


def test_what_the_events_say_of_a_task_is_kept_beside_them(run: Callable[[Scenario], None]) -> None:
    async def scenario(ports: Ports, clock: SteppedClock) -> None:
        store = ports.store
        turn = TurnCommitted(
            workflow_task_id="",
            base=0,
            nonce="",
            generation=0,
            commands=[Command(id=id, position=id, kind="task", name="n") for id in ("a", "b")],
            waits_for=WaitsFor(),
        )
        said: list[Event] = [
            turn,
            CommandSettled(command_id="b", outcome="failed"),
            Rewound(to_seq=1, generation=1, reason="", actor=""),
            RunEnded(status="completed"),
        ]
        for seq, event in enumerate(said, 1):
            head = Head(version=seq, run_id="r", seq=seq, runs=1)
            recorded = Recorded(seq=seq, at=seq, cause=f"m{seq}", event=event)
            await store.commit(
                Commit(
                    key=KEY,
                    expected_version=seq - 1,
                    expected_run="r" if seq > 1 else "",
                    head=head,
                    events=[recorded],
                    commit_id=f"c{seq}",
                )
            )
        of_all = [
            Mark(seq=3, kind="rewound", to_seq=1, generation=1),
            Mark(seq=4, kind="ended", status="completed"),
        ]
        assert list(await store.task_marks(KEY, "r", "a")) == [Mark(seq=1, kind="issued"), *of_all]
        failed = Mark(seq=2, kind="settled", outcome="failed")
        assert list(await store.task_marks(KEY, "r", "b")) == [Mark(seq=1, kind="issued"), failed, *of_all]
        assert list(await store.task_marks(KEY, "other", "a")) == []
        assert list(await store.task_marks(RunKey("ns", "other"), "r", "a")) == []
        assert await store.purge(KEY, "r", 4, 1000)
        assert await store.commit(commit(0, "r", 1, 1))
        assert list(await store.task_marks(KEY, "r", "a")) == []

    run(scenario)
