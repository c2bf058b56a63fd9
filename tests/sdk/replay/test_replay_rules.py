"""What workflow code may do on its loop, what it may not, and what the refusal tells."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure import (
    all_of,
    branch,
    channel,
    continue_as_new,
    logger,
    patched,
    sleep,
    workflow,
)
from perdure._replay import loop as loop_module
from perdure_schemas import ids
from perdure_schemas.common import NULL, Payload
from perdure_schemas.events import CommandSettled, Recorded, SignalReceived
from tests.sdk.replay import world
from tests.sdk.replay.live import Live, instance_of, stopped
from tests.sdk.replay.shaping import child, doubled, echo

# --- positions ------------------------------------------------------------------------------------------


@workflow
async def one_more_in_a_branch() -> None:
    await all_of(branch(_calls(1)), branch(_calls(2)), echo(3))


async def _calls(count: int) -> None:
    await all_of([echo(n) for n in range(count)])


def test_a_branch_has_positions_of_its_own() -> None:
    """Inserting a call in one does not shift another."""
    positions = [command.position for command in Live(one_more_in_a_branch).begin().commands]
    assert sorted(positions) == ["0.0", "1.0", "1.1", "2"]


@workflow
async def awaits_a_branch_early() -> int:
    return await branch(doubled(7))


def test_a_branch_awaited_before_it_has_done_anything_does_not_hang() -> None:
    live = Live(awaits_a_branch_early)
    assert [c.position for c in live.begin().commands] == ["0.0"]
    assert [c.position for c in live.complete("0.0", 7).commands] == ["0.1"]
    turn = live.complete("0.1", 7)
    assert turn.completion is not None
    assert turn.completion.result == Payload("json", b"7")


@workflow
async def cancels() -> None:
    lost, kept = echo(1), echo(2)
    lost.cancel()
    await kept
    await echo(3)


def test_a_cancel_takes_no_position() -> None:
    live = Live(cancels)
    assert [(c.kind, c.position) for c in live.begin().commands] == [("task", "0"), ("task", "1"), ("cancel", "0!")]
    assert [c.position for c in live.complete("1").commands] == ["2"]


def test_ids_are_derived_as_the_schemas_say() -> None:
    run = instance_of(cancels, generation=3)
    turn = run.turn([world.recorded(1, world.started())], base=1, generation=3)
    assert [c.id for c in turn.commands] == [
        ids.command_id("default", "workflow-1", "run-1", 3, position) for position in ("0", "1", "0!")
    ]


def test_a_child_is_started_with_the_options_given() -> None:
    async def code() -> None:
        await child.options(id="kid", build="b-7", build_policy="inherit", close_policy="abandon")(1)

    live = Live(workflow(code))
    (command,) = live.begin().commands
    given = (command.child_id, command.build, command.build_policy, command.close_policy)
    assert given == ("kid", "b-7", "inherit", "abandon")


def test_an_outcome_after_the_cancel_is_dropped() -> None:
    live = Live(cancels)
    live.begin()
    assert live.complete("0").commands == []
    assert live.last.stoppage is None


def test_a_task_made_directly_has_no_place() -> None:
    async def code() -> None:
        asyncio.Task(doubled(1), loop=asyncio.get_running_loop())
        await sleep(1)

    assert "asyncio.Task(...) made directly has no place" in stopped(code)


def test_create_task_of_what_runs_already_says_so() -> None:
    async def code() -> None:
        await asyncio.create_task(echo(1))  # type: ignore[arg-type]

    assert "runs already: await it" in stopped(code)


# --- what the loop refuses ------------------------------------------------------------------------------


async def opens_connection() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def starts_server() -> None:
    await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)


async def runs_in_thread() -> None:
    await asyncio.to_thread(threading.get_ident)


async def runs_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def looks_up_name() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def calls_from_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def sets_task_factory() -> None:
    asyncio.get_running_loop().set_task_factory(None)


async def swallows_the_error() -> None:
    try:
        await asyncio.to_thread(threading.get_ident)
    except Exception:
        await sleep(1)


@pytest.mark.parametrize(
    "code",
    [
        opens_connection, starts_server, runs_in_thread, runs_process, looks_up_name, calls_from_thread,
        sets_task_factory, swallows_the_error,
    ],
)  # fmt: skip
def test_what_leaves_the_workflow_is_refused(code: Callable[[], Any]) -> None:
    told = stopped(code)
    assert "NotInWorkflow" in told
    assert "test_replay_rules.py:" in told
    assert "@task" in told


def test_asyncio_run_inside_is_refused() -> None:
    async def code() -> None:
        never_run = doubled(1)
        try:
            asyncio.run(never_run)
        finally:
            never_run.close()

    assert "cannot be called from a running event loop" in stopped(code)


# --- patches ------------------------------------------------------------------------------------------------


@workflow
async def before_patch() -> int:
    return await echo(1)


@workflow(name="before_patch")
async def after_patch() -> int:
    if patched("more"):
        await echo(10)
    return await echo(1)


def test_a_run_that_has_passed_the_point_goes_the_old_way() -> None:
    old = Live(before_patch)
    old.begin()
    rebuilt = instance_of(after_patch)
    rebuilt.replay(old.history)
    (task,) = old.last.commands
    end = world.recorded(3, world.settled(task.id, "completed", world.json(1)))
    turn = rebuilt.turn([end], base=3, generation=0)
    assert turn.completion is not None
    assert turn.patches == []


def test_a_run_that_has_not_goes_the_new_way_and_remembers() -> None:
    live = Live(after_patch)
    assert live.begin().patches == ["more"]
    rebuilt = instance_of(after_patch)
    rebuilt.replay(live.history)
    (task,) = live.last.commands
    turn = rebuilt.turn([world.recorded(3, world.settled(task.id, "completed", world.json(10)))], base=3, generation=0)
    assert [command.position for command in turn.commands] == ["1"]


# --- changed code ----------------------------------------------------------------------------------------


@workflow(name="before_patch")
async def other_task() -> int:
    return await doubled(1)


@workflow(name="before_patch")
async def no_task() -> None:
    await sleep(1)


@workflow(name="before_patch")
async def other_argument() -> int:
    return await echo(2)


@workflow(name="before_patch")
async def nothing_at_all() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (no_task, "has task echo at position 0; the code now issues timer"),
        (other_argument, "the code now issues task echo, with other arguments: recorded [1], now [2]. Guard"),
        (nothing_at_all, "has task echo at position 0, which the code no longer issues"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_changed_code_is_told_where_and_what(code: Any, told: str) -> None:
    old = Live(before_patch)
    old.begin()
    rebuilt = instance_of(code)
    rebuilt.replay(old.history)
    turn = rebuilt.turn([], base=2, generation=0)
    assert turn.stoppage is not None
    assert turn.stoppage.kind == "changed"
    assert told in turn.stoppage.failure.message


# --- limits and the rest -------------------------------------------------------------------------------


def test_a_run_that_makes_too_many_futures_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its numbers would run into the salt of the hash, and sets of futures into another order."""
    monkeypatch.setattr(loop_module, "FUTURES_MAX", 16)

    async def code() -> None:
        await all_of([echo(n) for n in range(20)])

    told = stopped(code)
    assert "a run can make 16 futures" in told
    assert "continue_as_new()" in told


def test_branches_have_contexts_of_their_own() -> None:
    seen = contextvars.ContextVar("seen", default=0)

    async def part(n: int) -> int:
        seen.set(n)
        await echo(n)
        return seen.get()

    async def code() -> list[int]:
        return [*(await asyncio.gather(part(1), part(2))), seen.get()]

    assert b"WzEsMiwwXQ==" in world.play(workflow(code), 1).transcript.completion  # [1, 2, 0]


def test_a_failure_that_nobody_looks_at_fails_the_run() -> None:
    async def code() -> str:
        branch(doubled(1_000))
        await sleep(1)
        await sleep(1)
        return "done"

    assert b'"failed"' in world.play(workflow(code), 1).transcript.completion


def test_time_is_that_of_the_event_and_begins_at_zero() -> None:
    async def code() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        await echo(1)
        return [*times, loop.time()]

    live = Live(workflow(code))
    live.begin()
    started_at = live.run.context.started_at
    (task,) = live.last.commands
    event = CommandSettled(command_id=task.id, outcome="completed", result=NULL)
    turn = live.run.turn([Recorded(seq=3, at=started_at + 1_500, cause="", event=event)], base=3, generation=0)
    assert turn.completion is not None
    assert turn.completion.result is not None
    assert msgspec.json.decode(turn.completion.result.data)[1] == 1.5


@pytest.mark.parametrize("seconds", [math.inf, 1e12])
def test_a_delay_beyond_all_lives_is_no_timer(seconds: float) -> None:
    async def code() -> int:
        return await asyncio.wait_for(echo(1), seconds)

    live = Live(workflow(code))
    assert [command.kind for command in live.begin().commands] == ["task"]
    assert live.complete("0").completion is not None


def test_log_lines_are_written_once_and_tell_the_run(caplog: pytest.LogCaptureFixture) -> None:
    async def code() -> None:
        logger.warning("begun", extra={"step": 1})
        await echo(1)

    live = Live(workflow(code))
    live.begin()
    rebuilt = instance_of(workflow(code))
    rebuilt.replay(live.history)
    (line,) = caplog.records
    assert (line.__dict__["step"], line.__dict__["run_id"]) == (1, "run-1")


def test_nothing_is_collected_amid_workflow_code() -> None:
    async def code() -> bool:
        return gc.isenabled()

    turn = Live(workflow(code)).begin()
    assert turn.completion is not None
    assert turn.completion.result == Payload("json", b"false")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("wrong")], ids=repr)
def test_what_a_callback_raises_stops_the_run(error: BaseException) -> None:
    def raises(_: object) -> None:
        raise error

    async def code() -> None:
        branch(doubled(1)).add_done_callback(raises)
        asyncio.get_running_loop().call_soon(raises, None)
        await sleep(1)

    assert type(error).__name__ in stopped(code)


def test_an_exit_in_workflow_code_stops_the_run_alone() -> None:
    async def code() -> None:
        raise SystemExit(3)

    assert "SystemExit" in stopped(code)


def test_what_lies_beyond_the_last_turn_is_live() -> None:
    """An event that the replayed turns had not been fed is new, though it was known at the replay."""

    async def code() -> bool:
        await echo(1)
        return patched("new")

    live = Live(workflow(code))
    live.begin()
    (task,) = live.last.commands
    beyond = world.recorded(3, world.settled(task.id, "completed", world.json(1)))
    rebuilt = instance_of(workflow(code))
    rebuilt.replay([live.history[0], world.renumbered(beyond, 2), world.renumbered(live.history[1], 3)])
    turn = rebuilt.turn([], base=3, generation=0)
    assert turn.patches == ["new"]


def test_many_live_generators_are_kept_in_linear_time() -> None:
    looked = 0

    class Generator:
        @property
        def ag_frame(self) -> object:
            nonlocal looked
            looked += 1
            return self

    kept = instance_of(before_patch).loop.generators
    alive = [Generator() for _ in range(1_000)]
    for each in alive:
        kept.keep(each)
    assert looked < 3 * len(alive)


@workflow
async def goes_on_as_new(again: bool) -> None:
    if again:
        await channel("votes", int).receive()
        await echo(1)
        continue_as_new(goes_on_as_new, again=False)


def test_signals_that_nobody_received_move_on_to_the_next_run() -> None:
    """Buffered ones, and those that came after the end in the same turn."""
    live = instance_of(goes_on_as_new)
    events = [world.recorded(1, world.started(True)), *(world.recorded(n, _vote(n)) for n in (2, 3))]
    (task,) = live.turn(events, base=3, generation=0).commands
    outcome = world.recorded(4, world.settled(task.id, "completed", world.json(1)))
    turn = live.turn([outcome, world.recorded(5, _vote(5))], base=5, generation=0)
    assert turn.completion is not None
    assert turn.completion.status == "continued-as-new"
    assert turn.completion.next_run is not None
    assert turn.completion.next_run.unreceived == [3, 5]
    assert turn.completion.next_run.args == world.json([False])


def _vote(number: int) -> SignalReceived:
    return SignalReceived(channel="votes", payload=world.json(number), sender="test", number=number)


@workflow
async def waits_for_a_vote_or_a_minute() -> list[int | None]:
    votes = channel("votes", int)
    return [await (votes.receive() | echo(0)), await votes.receive(), await votes.receive()]


@workflow
async def keeps_what_it_waits_for() -> list[int | None]:
    votes = channel("votes", int)
    vote = votes.receive()
    first = await (vote | echo(0))
    taken = vote.done()
    return [first, await echo(1), int(taken), await vote, await votes.receive()]


@workflow
async def groups_what_it_waits_for() -> list[Any]:
    votes = channel("votes", int)
    both = votes.receive() & votes.receive()
    first = await (both | echo(0))
    return [first, await votes.receive(), *await both]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (waits_for_a_vote_or_a_minute, b"[0,1,2]"),
        (keeps_what_it_waits_for, b"[0,9,0,1,2]"),
        (groups_what_it_waits_for, b"[0,1,2,3]"),
    ],
)
def test_a_receive_that_lost_takes_no_signal_before_it_is_waited_for_again(code: Any, result: bytes) -> None:
    """Or the time-out in `receive() | timer(60)` would swallow the next signal."""
    live = Live(code)
    live.begin()
    turn = live.complete("0", 0)
    for number in (1, 2, 3):
        if turn.completion is None:
            turn = live.feed(_vote(number))
    if turn.completion is None:
        turn = live.complete("1", 9)
    assert turn.completion is not None
    assert turn.completion.result == Payload("json", result)


@workflow
async def receives_while_canceled() -> int:
    numbers = channel("numbers", int)
    receipt = numbers.receive()
    receipt.cancel()
    number: int = await numbers.receive()
    return number


def test_a_canceled_receipt_takes_no_signal() -> None:
    assert b'"completed"' in world.play(receives_while_canceled, 1, signals=[("numbers", 5)]).transcript.completion
