"""The test environment: its time, its mocks, and what it tells of stuck runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from functools import partial
from typing import Protocol

import pytest

from perdure import (
    Channel,
    ChildFailed,
    DefinitionError,
    Handle,
    PerdureError,
    Retry,
    SerializationError,
    TaskFailed,
    WorkflowError,
    current_task,
    now,
    service,
    service_stub,
    sleep,
    task,
    timer,
    update,
    workflow,
)
from perdure.testing import NothingComes, RunStuck, WorkflowEnvironment

pytestmark = pytest.mark.asyncio

YEAR = dt.timedelta(days=365)
NEW_YEAR = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@task(retry=Retry(attempts=4, initial=3600, factor=2, max=dt.timedelta(days=1), jitter=0))
async def ask(question: str) -> int:
    raise ConnectionError("nobody there")


@workflow
async def yearly(times: int) -> list[int]:
    seen = []
    for _ in range(times):
        await sleep(YEAR.total_seconds())
        seen.append(now().year)
    return seen


@workflow
async def asking(question: str) -> str:
    try:
        return f"{await ask(question)} at {now():%H:%M}"
    except TaskFailed as error:
        return f"{error.__cause__} at {now():%H:%M}"


@workflow
class Door:
    knocks: Channel[str] = Channel()

    async def run(self) -> str:
        knock, patience = self.knocks.receive(), timer(dt.timedelta(hours=1))
        await (knock | patience)
        return knock.result() if knock.done() else "nobody came"

    @update
    async def later(self, hours: int) -> str:
        await sleep(hours * 3600)
        return f"{now():%H:%M}"


@workflow
async def buggy(hours: int) -> None:
    await sleep(hours * 3600)
    raise KeyError("a bug")


@workflow
async def parent_of_buggy() -> None:
    await buggy(2)


async def test_years_pass_at_once() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(yearly, start=NEW_YEAR) as env:
        assert await env.client.execute(yearly, 50) == [(NEW_YEAR + n * YEAR).year for n in range(1, 51)]
        assert env.now() == NEW_YEAR + 50 * YEAR


async def test_time_stands_still_while_nobody_waits() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(yearly, start=NEW_YEAR) as env:
        run = await env.client.start(yearly, 1)
        await env.idle()
        await asyncio.sleep(0.05)
        assert env.now() == NEW_YEAR
        assert (await run.describe()).status == "running"


async def test_a_sleep_brings_what_lies_in_it_and_nothing_more() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(yearly, start=NEW_YEAR) as env:
        run = await env.client.start(yearly, 2)
        await env.sleep(2 * YEAR - dt.timedelta(milliseconds=1))
        assert (await run.describe()).status == "running"
        await env.sleep(0.001)
        assert (await run.describe()).status == "completed"
        assert env.now() == NEW_YEAR + 2 * YEAR
        assert await run.result() == [2031, 2032]


async def test_sleeps_of_several_tests_parts_share_one_time() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(start=NEW_YEAR) as env:

        async def part(hours: int) -> dt.datetime:
            await env.sleep(dt.timedelta(hours=hours))
            return env.now()

        ends = await asyncio.gather(part(3), part(1), part(2))
        assert [(end - NEW_YEAR).seconds // 3600 for end in ends] == [3, 1, 2]


async def test_retries_come_when_they_are_due() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(asking, start=NEW_YEAR) as env:
        moments: list[int] = []

        def answer(question: str) -> int:
            moments.append(env.now().hour)
            if len(moments) < 4:
                raise ConnectionError("nobody there")
            return len(question)

        mock = env.mock(ask, answer)
        assert await env.client.execute(asking, "six by nine?") == "12 at 07:00"
        assert moments == [0, 1, 3, 7]
        assert mock.calls == [("six by nine?",)] * 4


async def test_a_mock_is_a_value_an_error_or_a_function_and_may_change() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(asking, start=NEW_YEAR) as env:
        mock = env.mock(ask, 42)
        assert await env.client.execute(asking, "q") == "42 at 00:00"
        mock.answer = PermissionError("no")
        assert await env.client.execute(asking, "q") == "PermissionError: no at 07:00"

        async def slowly(question: str) -> int:
            await asyncio.sleep(0.01)
            return len(question)

        mock.answer = slowly
        assert await env.client.execute(asking, "four") == "4 at 07:00"
        assert len(mock.calls) == 6
        assert "called 6 times" in repr(mock)
        again = env.mock(ask, 7)
        assert await env.client.execute(asking, "q") == "7 at 07:00"
        assert len(mock.calls) == 6
        assert again.calls == [("q",)]


async def test_a_mock_must_answer_by_the_types_of_what_it_stands_for() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(asking) as env:
        env.mock(ask, "no number")
        assert "SerializationError" in await env.client.execute(asking, "q")
        with pytest.raises(SerializationError):
            await env.client.run(ask, 5)  # type: ignore[call-overload]  # wrong on purpose
        with pytest.raises(DefinitionError):
            env.mock(print, 1)
        with pytest.raises(DefinitionError, match=r"neither task nor workflow: .*the task itself, not its \.fn"):
            env.mock(ask.fn, 3)


@service
class Bank(Protocol):
    async def charge(self, cents: int) -> str: ...


bank = service_stub(Bank)


@workflow
async def paying(cents: int) -> str:
    return await bank.charge(cents)


@workflow
async def family() -> str:
    try:
        return await asking("child")
    except ChildFailed as error:
        return str(error.__cause__)


async def test_methods_of_services_and_children_are_mocked_too() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(paying) as env:
        charged = env.mock(bank.charge, "receipt")
        assert await env.client.execute(paying, 5) == "receipt"
        assert charged.calls == [(5,)]
    env = WorkflowEnvironment(family, asking)
    child = env.mock(asking, "mocked")
    async with asyncio.timeout(60), env:
        assert await env.client.execute(family) == "mocked"
        assert child.calls == [("child",)]
        child.answer = WorkflowError("gone")
        assert await env.client.execute(family) == "WorkflowError: gone"
        with pytest.raises(DefinitionError, match="before `async with`"):
            env.mock(asking, "too late")


async def test_a_signal_before_the_time_is_up_and_none() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(Door, start=NEW_YEAR) as env:
        run = await env.client.start(Door)
        await env.sleep(dt.timedelta(minutes=59))
        await run.signal(Door.knocks, "ada")
        assert await run.result() == "ada"
        assert await env.client.execute(Door) == "nobody came"
        assert env.now() == NEW_YEAR + dt.timedelta(minutes=119)


async def test_an_update_that_waits_moves_time() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(Door, yearly, start=NEW_YEAR) as env:
        run = await env.client.start(Door)
        await env.sleep(1800)
        assert await run.update(Door.later, 0) == "00:30"
        await run.signal(Door.knocks, "bob")
        assert await run.result() == "bob"


async def test_a_stuck_run_is_told_where_it_is_waited_for() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(buggy, parent_of_buggy) as env:
        with pytest.raises(RunStuck, match=r"of buggy is stuck: KeyError: 'a bug'(.|\n)*raise KeyError") as raised:
            await env.client.execute(buggy, 1)
        assert str(raised.value.__cause__) == "KeyError: 'a bug'"
        with pytest.raises(RunStuck, match="of buggy is stuck"):
            await env.client.execute(parent_of_buggy)
        run = await env.client.start(buggy, 0)
        await env.idle()
        with pytest.raises(RunStuck):
            await run.result()
        await run.terminate("given up")


async def test_a_real_task_takes_its_time_and_time_waits_for_it() -> None:
    @task
    async def real() -> str:
        await asyncio.sleep(0.05)
        return "done"

    @workflow
    async def race() -> str:
        done, patience = real(), timer(60)
        await (done | patience)
        return done.result() if done.done() else "too slow"

    async with asyncio.timeout(60), WorkflowEnvironment(race, real) as env:
        assert await env.client.execute(race) == "done"


async def test_all_of_a_mock_and_a_timer_does_not_wait_for_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though an outcome that starts no turn is kept back."""
    monkeypatch.setattr("perdure_runtime.workflow_decider.HOLD_MAX_MS", 3_600_000)

    @workflow
    async def both() -> int:
        value, _ = await (ask("q") & timer(YEAR))
        return value

    async with asyncio.timeout(60), WorkflowEnvironment(both) as env:
        env.mock(ask, 1)
        assert await env.client.execute(both) == 1


async def test_a_start_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        WorkflowEnvironment(start=dt.datetime(2030, 1, 1))


async def test_many_runs_sleep_side_by_side() -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(yearly, start=NEW_YEAR) as env:
        ends = await asyncio.gather(*(env.client.execute(yearly, 2) for _ in range(300)))
        assert ends == [[2031, 2032]] * 300


@workflow
class Gate:
    go: Channel[str] = Channel()

    async def run(self) -> str:
        return await self.go.receive()

    @update
    async def passed(self) -> str:
        return await self.go.receive()


async def test_a_wait_for_what_never_comes_says_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "perdure._testing.timekeeper.SILENT_LOOKS", 100
    )  # how long is not asked here, and they are five
    lacking = r"run '.*' of {} waits for task ask, which is neither given nor mocked: env.mock\(ask, …\)"
    silent = "run '.*' of Gate waits for signal go, which nobody sends"
    async with asyncio.timeout(120), WorkflowEnvironment(asking, family, Gate) as env:
        with pytest.raises(NothingComes, match="^" + lacking.format("asking")):
            await env.client.execute(asking, "q")
        with pytest.raises(NothingComes, match=f"of family waits for child asking; {lacking.format('asking')}"):
            await env.client.execute(family)
        gate = await env.client.start(Gate, id="front")
        with pytest.raises(NothingComes, match=silent) as raised:
            await gate.result()
        assert "asking" not in str(raised.value), "other runs are no news"
        with pytest.raises(NothingComes, match=silent):
            await gate.update(Gate.passed)
        monkeypatch.undo()  # a start that no worker takes is recorded after half a second
        with pytest.raises(NothingComes, match=r"given: pass it to WorkflowEnvironment"):
            await env.client.execute(yearly, 1)
        env.mock(ask, 42)
        await gate.signal(Gate.go, "late")
        assert await gate.result() == "late", "the run itself is as it was"


async def test_questions_that_are_asked_again_meanwhile_are_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine they are, before it has been silent for long enough."""
    for name in ("FIRST", "MAX"):
        monkeypatch.setattr(f"perdure._client.requests.ASK_AGAIN_SECONDS_{name}", 0.05)
    async with asyncio.timeout(60), WorkflowEnvironment(Gate) as env:
        with pytest.raises(NothingComes, match="waits for signal go"):
            await env.client.execute(Gate)


async def test_what_comes_a_moment_of_real_time_later_is_waited_for() -> None:
    async def send(run: Handle[str], patience: float) -> None:
        await asyncio.sleep(patience)
        await run.signal(Gate.go, "sent")

    async with asyncio.timeout(60), WorkflowEnvironment(Gate) as env:
        for _ in range(3):
            run = await env.client.start(Gate)
            result, _ = await asyncio.gather(run.result(), send(run, 1))
            assert result == "sent"


async def test_real_work_is_waited_for_however_long_it_takes() -> None:
    handed_over: list[str] = []

    @task
    async def slow() -> str:
        await asyncio.to_thread(time.sleep, 4)
        return "async"

    @task
    def blocking() -> str:
        time.sleep(4)
        return "thread"

    @task
    async def delegated() -> str:
        current_task().delegate()
        handed_over.append(current_task().id)
        return ""

    @workflow
    async def works() -> list[str]:
        return list(await asyncio.gather(slow(), blocking(), delegated()))

    async def complete(env: WorkflowEnvironment) -> None:
        await asyncio.sleep(7)
        while not handed_over:  # noqa: ASYNC110 - it is handed over in another thread
            await asyncio.sleep(0.01)
        await env.client.task(handed_over[0]).complete("outside")

    async with asyncio.timeout(60), WorkflowEnvironment(works, slow, blocking, delegated) as env:
        result, _ = await asyncio.gather(env.client.execute(works), complete(env))
        assert result == ["async", "thread", "outside"]
        assert env._time._silent_looks == 0


async def test_the_worker_warns_of_no_task_that_is_mocked(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60), WorkflowEnvironment(asking, paying) as env:
        env.mock(ask, 42)
        await env.client.execute(asking, "q")
        assert "task_unknown_here" not in caplog.text
        with pytest.raises(NothingComes):
            await env.client.execute(paying, 5)
        assert "waits for task Bank.charge, which this worker does not have (it has: ask)" in caplog.text


async def test_an_environment_is_opened_once_and_tells_who_uses_it_before_or_after() -> None:
    env = WorkflowEnvironment(yearly)
    async with asyncio.timeout(20):
        for wait in (partial(env.sleep, 1), env.idle):
            with pytest.raises(PerdureError, match="the environment is not open: use it inside `async with"):
                await wait()
        async with env:
            assert await env.client.execute(yearly, 1)
        with pytest.raises(PerdureError, match="the environment is not open"):
            await env.sleep(1)
        with pytest.raises(PerdureError, match="opened already: make another one"):
            async with env:
                pass
