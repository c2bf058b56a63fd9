"""What a failed run left open ends with it, with the real engines and a real worker."""

from __future__ import annotations

import asyncio

import pytest

from perdure import RunFailed, WorkflowError, task, workflow
from perdure_runtime import task_holds
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_runtime.errors import StorageUnavailable
from perdure_runtime.ports import RunKey
from perdure_schemas import topics
from perdure_schemas.messages import CancelTask, CancelTimer, RunPurged
from tests.sdk.semantics.world import Batch, Gate, World, until

pytestmark = pytest.mark.asyncio

GATES: dict[str, Gate] = {}
CANCELED: list[str] = []


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    GATES.clear()
    CANCELED.clear()
    monkeypatch.setattr(task_holds, "HOLD_MAX_S", 0.05)


@task
async def held(name: str) -> None:
    try:
        await GATES[name].passed()
    except asyncio.CancelledError:
        CANCELED.append(name)
        raise


@workflow
async def child() -> None:
    await held.options(heartbeat_timeout=60)("child")


async def _fails() -> None:
    held.options(heartbeat_timeout=60)("parent")
    child()
    raise WorkflowError("no")


failing = workflow(name="failing")(_fails)
kept_shortly = workflow(name="kept_shortly", retention=60)(_fails)


@workflow
async def following() -> str:
    return "another run"


def made_gates() -> list[Gate]:
    GATES.update(parent=Gate(), child=Gate())
    return list(GATES.values())


class Ahead(SystemClock):
    """Time passes when a test says so, too."""

    ahead_ms = 0

    def now(self) -> int:
        return super().now() + self.ahead_ms


class Outage:
    """The broker is away the first few times that a cancel is published."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, batch: Batch) -> Batch:
        if self.left and any(isinstance(message.body, CancelTask) for _, message in batch):
            self.left -= 1
            raise StorageUnavailable("the broker is away")
        return batch


@pytest.mark.parametrize("outages", [0, 2])
async def test_another_run_under_the_id_ends_it(outages: int) -> None:
    outage, gates = Outage(outages), made_gates()
    async with World(held, child, failing, following, tamper=outage) as world:
        run = await world.client.start(failing, id="o")
        with pytest.raises(RunFailed):
            await run.result()
        for gate in gates:
            await gate.reached()
        await world.quiet()
        assert CANCELED == []  # it may be resumed
        assert await world.client.execute(following, id="o") == "another run"
        await until(lambda: sorted(CANCELED) == ["child", "parent"])
        assert outage.left == 0
        assert (await run.describe()).status == "failed"


@pytest.mark.parametrize("outages", [0, 2])
async def test_its_purge_ends_it(outages: int) -> None:
    outage, gates = Outage(outages), made_gates()
    clock = Ahead()
    async with World(held, child, kept_shortly, ports=memory_ports(clock), tamper=outage) as world:
        run = await world.client.start(kept_shortly, id="o")
        with pytest.raises(RunFailed):
            await run.result()
        for gate in gates:
            await gate.reached()
        assert CANCELED == []
        clock.ahead_ms = 60_000
        await world.send(topics.TIMERS, CancelTimer(timer_id=""), "", id="nudge")  # its service looks at the clock
        await until(lambda: sorted(CANCELED) == ["child", "parent"])
        await until(lambda: any(purged.workflow_id == "o" for purged in world.spy.bodies(RunPurged)))
        assert outage.left == 0
        head, history = await world.ports.store.load(RunKey("default", "o"))
        assert (head.run_id, list(history)) == ("", [])
