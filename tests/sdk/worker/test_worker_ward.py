"""The last try of what two workers died of is alone, and holds the others up only so long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
import pytest_asyncio

from perdure._worker import ward as wards
from perdure._worker.ward import Ward
from perdure_runtime.ports import Consumer, Delivery
from perdure_schemas.common import NULL, TaskOptions, WorkflowRef
from perdure_schemas.messages import Body, CancelTimer, Message, RunTask, RunWorkflowTask
from tests.sdk.worker.engine import Ahead, ahead_of_time

pytestmark = pytest.mark.asyncio
NOW = 1_000_000
AGED = 3_600_000
"""Others make room for it for as long as for any."""


class Hands:
    """A consumer that remembers what was handed back, and whose deaths no longer count."""

    def __init__(self) -> None:
        self.back: list[Delivery] = []
        self.spared: list[Delivery] = []

    async def nack(self, deliveries: Sequence[Delivery], delay_ms: int) -> None:
        assert delay_ms > 0
        self.back += deliveries

    def spare(self, deliveries: Sequence[Delivery]) -> None:
        self.spared += deliveries


class Scene:
    """A ward, and what it lets in."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self.hands = Hands()
        self.busy = False
        self.inside: list[Delivery] = []
        self.ward = Ward(self, lambda: not self.busy)

    def now(self) -> int:
        return NOW

    async def come(self, *deliveries: Delivery) -> None:
        await self.ward.admit(list(deliveries), cast(Consumer, self.hands), self.inside.extend)

    async def seen(self, *deliveries: Delivery) -> None:
        """Those, and no others, were let in since the last time."""
        for _ in range(200):
            if len(self.inside) >= len(deliveries):
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(3 * wards.LOOK_SECONDS)
        assert self.inside == list(deliveries)
        self.inside.clear()


@pytest_asyncio.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(wards, "LOOK_SECONDS", 0.001)
    scene = Scene(ahead_of_time(monkeypatch))
    running = asyncio.create_task(scene.ward.run())
    yield scene
    running.cancel()


def delivery(deaths: int, age_ms: int = 0) -> Delivery:
    message = Message(id="m", namespace="ns", key="k", at=NOW - age_ms, body=CancelTimer(timer_id="t"))
    return Delivery(topic="t", message=message, redeliveries=deaths, deaths=deaths)


async def test_it_gets_in_alone_and_the_next_one_when_it_has_left(scene: Scene) -> None:
    clean, once, suspect, other, hopeless = delivery(0), delivery(1), delivery(2), delivery(2), delivery(3)
    await scene.come(clean, suspect, once, other, hopeless)
    await scene.seen(hopeless, suspect)
    assert scene.hands.back == [clean, once, other]
    await scene.come(other, clean, hopeless)
    await scene.seen(hopeless)
    assert scene.hands.back[3:] == [other, clean], "whoever is beside it could be the one who kills"
    scene.ward.leave([clean])
    await scene.come(other)
    await scene.seen()
    scene.ward.leave([suspect])
    scene.ahead.seconds = wards.TURN_SECONDS
    await scene.come(other)
    await scene.seen(other)
    assert scene.hands.spared == []


async def test_what_made_room_for_one_gets_its_turn_before_the_next_one(scene: Scene) -> None:
    first, second, clean, once = delivery(2), delivery(2), delivery(0), delivery(1)
    await scene.come(first, second, clean)
    await scene.seen(first)
    scene.ward.leave([first])
    scene.hands.back.clear()
    await scene.come(second, clean)
    await scene.come(once)
    await scene.seen(clean, once)
    assert scene.hands.back == [second]
    scene.busy = True
    scene.ahead.seconds = wards.TURN_SECONDS
    await scene.come(second)
    await scene.seen()
    scene.busy = False
    await scene.seen(second)
    assert scene.ward.to_begin([second]) == [second], "it is alone, so its death counts"
    assert scene.hands.spared == []


async def test_suspects_for_whom_nothing_made_room_follow_each_other_at_once(scene: Scene) -> None:
    first, second = delivery(2), delivery(2)
    await scene.come(first, second)
    await scene.seen(first)
    scene.ward.leave([first])
    await scene.come(second)
    await scene.seen(second)


async def test_what_is_spared_gives_those_a_turn_that_made_room_for_it(scene: Scene) -> None:
    first, second, clean = delivery(2), delivery(2), delivery(0)
    await scene.come(first, clean)
    await scene.seen(first)
    scene.ahead.seconds = wards.ALONE_SECONDS_MIN
    await scene.come(second, clean)
    await scene.seen(clean)
    assert scene.hands.spared == [first]


@pytest.mark.parametrize(
    ("body", "told", "ids"),
    [
        (
            RunTask(task_id="t", attempt_id="a", attempt=2, name="ship", args=NULL, options=TaskOptions(),
                    answer_to=[], workflow=WorkflowRef("order-1", "r", "order")),
            "2 workers died while they ran attempt 2 of task ship of run order-1: it is tried once more, alone,",
            {"task": "ship", "task_id": "t", "workflow_id": "order-1"},
        ),
        (
            RunTask(task_id="t", attempt_id="a", attempt=1, name="ship", args=NULL, options=TaskOptions(),
                    answer_to=[]),
            "2 workers died while they ran attempt 1 of task ship: ",
            {"task": "ship", "task_id": "t"},
        ),
        (
            RunWorkflowTask(workflow_task_id="w", workflow_id="order-1", run_id="r", name="order", generation=0,
                            attempt=1, committed=1, base=1, base_hash="h", hashes=[]),
            "2 workers died while they ran a turn of order, run order-1: ",
            {"workflow_id": "order-1"},
        ),
        (CancelTimer(timer_id="t"), "2 workers died while they ran a message of t: ", {}),
    ],
)  # fmt: skip
async def test_the_log_says_what_is_tried_alone_and_why(
    scene: Scene, caplog: pytest.LogCaptureFixture, *, body: Body, told: str, ids: dict[str, str]
) -> None:
    message = Message(id="m", namespace="ns", key="k", at=NOW, body=body)
    await scene.come(Delivery(topic="t", message=message, redeliveries=2, deaths=2))
    (record,) = [record for record in caplog.records if getattr(record, "action", "") == "last_try"]
    assert told in record.getMessage()
    assert ids.items() <= record.__dict__.items()


async def test_others_do_not_notice_it(scene: Scene) -> None:
    given = [delivery(0), delivery(1), delivery(3)]
    await scene.come(*given)
    assert scene.inside == given, "at once"
    assert scene.hands.back == []


async def test_it_waits_until_nothing_else_runs_and_nothing_else_begins(scene: Scene) -> None:
    scene.busy = True
    suspect, clean = delivery(2), delivery(0)
    await scene.come(suspect)
    await scene.come(clean)
    await scene.seen()
    assert scene.hands.back == [clean]
    scene.busy = False
    await scene.seen(suspect)
    assert scene.ward.to_begin([suspect]) == [suspect]


async def test_what_runs_on_beside_it_holds_it_up_only_so_long(scene: Scene) -> None:
    scene.busy = True
    suspect, clean = delivery(2, AGED), delivery(0)
    await scene.come(suspect)
    await scene.seen()
    scene.ahead.seconds = wards.ALONE_SECONDS_MAX
    await scene.seen(suspect)
    assert scene.ward.to_begin([suspect, clean]) == [clean], "it could die of what runs beside it"
    await scene.come(clean)
    await scene.seen(clean)
    assert scene.hands.back == []


async def test_it_holds_others_up_only_so_long(scene: Scene) -> None:
    suspect, clean, other = delivery(2, AGED), delivery(0), delivery(2, AGED)
    await scene.come(suspect)
    await scene.seen(suspect)
    scene.busy = True
    scene.ahead.seconds = wards.ALONE_SECONDS_MAX
    await scene.seen()
    assert scene.hands.spared == [], "as long as nobody wants to begin"
    await scene.come(clean)
    await scene.seen(clean)
    assert scene.hands.spared == [suspect]
    await scene.come(other)
    scene.busy = False
    await scene.seen(other)
    scene.ward.leave([suspect])
    await scene.come(clean)
    await scene.seen()
    assert scene.hands.back == [clean], "the other one is inside now"


@pytest.mark.parametrize(("age_ms", "seconds"), [(0, 10), (60_000, 60), (10**9, 600), (-5_000, 10)])
async def test_others_make_room_for_as_long_as_it_took_to_die_twice(
    scene: Scene, age_ms: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    suspect, clean = delivery(2, age_ms), delivery(0)
    await scene.come(suspect)
    await scene.seen(suspect)
    began = loop.time()
    monkeypatch.setattr(loop, "time", lambda: began + seconds - 1)
    await scene.come(clean)
    assert scene.inside == []
    monkeypatch.setattr(loop, "time", lambda: began + seconds + 1)
    await scene.come(clean)
    assert scene.inside == [clean]
