"""What the checkers take for wrong, and what for right, in worlds that are told them instead of played."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from perdure_runtime.ports import Commit, Head, RunKey
from perdure_schemas.common import Command, Failure, Payload, RunOptions, TaskOptions, WaitsFor, WorkflowRef
from perdure_schemas.events import CommandSettled, Event, Recorded, Rewound, RunEnded, Started, TurnCommitted
from perdure_schemas.messages import CommandReply, Message, RunResult, RunTask, TaskOutcome
from tests.simulation.checks import double_deliveries_are_excused, one_terminal_state, outcomes_are_accounted_for
from tests.simulation.client import NAMESPACE, Run
from tests.simulation.faults import NO_FAULTS
from tests.simulation.rewinds import reset, resume_changed
from tests.simulation.virtual import VirtualLoop
from tests.simulation.world import World

ENGINE, OTHER_ENGINE = "workflow-engine-0.1", "workflow-engine-1.1"
KEY = RunKey(NAMESPACE, "told")
NOTHING = Payload("json", b"[]")
FAILED = RunEnded(status="failed")
FINAL = RunEnded(status="failed", final=True)
TERMINATED = RunEnded(status="terminated")
REWOUND = Rewound(to_seq=2, generation=1, reason="", actor="")
SLOW = Command(id="slow", position="0", kind="task", name="slow")
CANCEL = Command(id="cancel", position="0!", kind="cancel", target="slow")


class Telling:
    """A world in which one run is told."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.world = World(1, NO_FAULTS, loop)
        self.world.any_engine = False
        self.seq = 0
        self.record(Started(run_id="run", name="careful", args=NOTHING, options=RunOptions()))
        self.record(_turn(SLOW))

    def record(self, *events: Event) -> None:
        recorded = [
            Recorded(seq=seq, at=0, cause=f"cause-{seq}", event=event) for seq, event in enumerate(events, self.seq + 1)
        ]
        self.seq += len(events)
        version = len(self.world.ledger.commits)
        head = Head(version=version + 1, run_id="run", seq=self.seq, runs=1)
        commit = Commit(
            key=KEY, expected_version=version, expected_run="run", head=head, events=recorded, commit_id=str(version)
        )
        self.world.ledger.committed(ENGINE, commit, 0)

    def publish_task(self, at: float, process: str = ENGINE) -> None:
        workflow = WorkflowRef(KEY.workflow_id, "run", "careful")
        task = RunTask(
            task_id="slow",
            attempt_id="attempt",
            attempt=1,
            name="slow",
            args=NOTHING,
            options=TaskOptions(),
            answer_to=[],
            workflow=workflow,
        )
        message = Message(id="message", namespace=NAMESPACE, key="slow", at=0, body=task)
        self.world.ledger.published(process, message, at)

    def found(self, check: Callable[[World], Any]) -> list[str]:
        return list(check(self.world))


@pytest.fixture
def told() -> Iterator[Telling]:
    loop = VirtualLoop()
    yield Telling(loop)
    loop.close()


def _turn(*commands: Command) -> TurnCommitted:
    return TurnCommitted(
        workflow_task_id="", base=1, nonce="", generation=0, commands=list(commands), waits_for=WaitsFor()
    )


# --- outcomes ---------------------------------------------------------------------------------------


def _tell_outcome(told: Telling) -> None:
    told.world.ledger.outcomes.append(
        TaskOutcome(
            workflow_id=KEY.workflow_id,
            run_id="run",
            command_id="slow",
            generation=0,
            attempt=1,
            outcome="canceled",
        )
    )


def test_the_outcome_of_a_command_that_the_workflow_canceled_is_not_lost(told: Telling) -> None:
    _tell_outcome(told)
    told.record(_turn(CANCEL))
    told.record(FAILED)
    assert not told.found(outcomes_are_accounted_for)


def test_an_outcome_that_nobody_recorded_is_lost(told: Telling) -> None:
    _tell_outcome(told)
    told.record(FAILED)
    assert told.found(outcomes_are_accounted_for) == ["lost: the outcome of command slow in run told"]


def test_a_cancel_that_a_rewind_undid_ends_nothing(told: Telling) -> None:
    _tell_outcome(told)
    told.record(_turn(CANCEL))
    told.record(FAILED)
    told.record(REWOUND)
    assert told.found(outcomes_are_accounted_for) == ["lost: the outcome of command slow in run told"]


@pytest.mark.parametrize("event", [_turn(CANCEL), CommandSettled(command_id="slow", outcome="canceled"), TERMINATED])
def test_a_task_is_not_asked_for_after_its_end(told: Telling, event: Event) -> None:
    told.publish_task(1.0)
    assert not told.world.ledger.violations
    told.record(event)
    told.publish_task(2.0)
    assert [found.partition(":")[0] for found in told.world.ledger.violations] == ["late RunTask"]


# --- ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [FAILED],
        [FAILED, FINAL],
        [FAILED, TERMINATED],
        [FAILED, REWOUND, FAILED, FINAL],
        [TERMINATED, REWOUND, TERMINATED],
    ],
)
def test_a_run_may_end_so(told: Telling, events: list[Event]) -> None:
    for event in events:
        told.record(event)
    assert not told.found(one_terminal_state)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [FINAL],
        [FAILED, FAILED],
        [FAILED, RunEnded(status="completed")],
        [FAILED, FINAL, FINAL],
        [FAILED, FINAL, TERMINATED],
        [TERMINATED, FINAL],
        [FAILED, FINAL, REWOUND],
    ],
)
def test_no_run_may_end_so(told: Telling, events: list[Event]) -> None:
    for event in events:
        told.record(event)
    assert [found.partition(":")[0] for found in told.found(one_terminal_state)] == ["terminal"]


# --- attempts that are published twice --------------------------------------------------------------


def _publish_twice(told: Telling, key: str, *handlers: tuple[str, float]) -> None:
    """At 10 s and at 11 s; the engines got messages of the key at these times."""
    for handler, at in handlers:
        told.world.ledger.taken(handler, "workflow-engine", key, at)
    told.publish_task(10.0)
    told.publish_task(11.0, OTHER_ENGINE)


@pytest.mark.parametrize("key", [KEY.workflow_id, "slow"])
def test_a_key_that_moved_between_them_excuses_it(told: Telling, key: str) -> None:
    _publish_twice(told, key, (ENGINE, 9.9), (OTHER_ENGINE, 10.5))
    assert not told.found(double_deliveries_are_excused)


@pytest.mark.parametrize(
    ("key", "handlers"),
    [
        (KEY.workflow_id, [(ENGINE, 9.9), (ENGINE, 10.5)]),
        (KEY.workflow_id, [(ENGINE, 9.0), (OTHER_ENGINE, 9.5)]),
        (KEY.workflow_id, [(ENGINE, 10.5), (OTHER_ENGINE, 11.5)]),
        ("another", [(ENGINE, 9.9), (OTHER_ENGINE, 10.5)]),
    ],
    ids=["it did not move", "before", "after", "another key"],
)
def test_nothing_else_about_keys_excuses_it(told: Telling, key: str, handlers: list[tuple[str, float]]) -> None:
    _publish_twice(told, key, *handlers)
    assert [found.partition(":")[0] for found in told.found(double_deliveries_are_excused)] == ["double"]


def test_where_keys_stick_to_no_replica_the_move_may_come_shortly_before(told: Telling) -> None:
    _publish_twice(told, KEY.workflow_id, (ENGINE, 9.0), (OTHER_ENGINE, 9.5))
    told.world.any_engine = True
    assert not told.found(double_deliveries_are_excused)


# --- scripts ----------------------------------------------------------------------------------------


class Refusing:
    """A client whose run was given up at its first task, and whose resets are refused, or not."""

    def __init__(self, told: Telling, answer: CommandReply) -> None:
        self.world = told.world
        self._answer = answer

    async def start(self, *args: Any, **options: Any) -> Run:
        return Run(KEY.workflow_id, "run")

    async def result(self, *args: Any) -> RunResult:
        died = Failure(name="WorkerDied", message="3 workers died while they ran this attempt")
        return RunResult(workflow_id=KEY.workflow_id, run_id="run", status="failed", failure=died)

    async def resume(self, *args: Any, **changes: Any) -> CommandReply:
        return self._answer


@pytest.mark.parametrize("script", [reset, resume_changed])
def test_a_reset_to_where_the_run_never_came_is_refused(
    told: Telling, script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "kill", lambda *_: None)
    monkeypatch.setattr("tests.simulation.app.Stage.version", 1)
    monkeypatch.setattr("tests.simulation.app.Stage.repaired", set())
    late: Any = SimpleNamespace(choice=lambda positions: positions[-1])
    told.world.processes = dict.fromkeys(("worker-0", "worker-1"))  # type: ignore[assignment]
    asyncio.run(script(Refusing(told, CommandReply(status="refused")), late))
    with pytest.raises(AssertionError, match="'ok', expected 'refused'"):
        asyncio.run(script(Refusing(told, CommandReply(status="ok")), late))


def test_a_reset_to_where_the_run_came_is_not_refused(told: Telling) -> None:
    told.record(_turn(Command(id="later", position="2", kind="task", name="add_one")))
    with pytest.raises(AssertionError, match="'refused', expected 'ok'"):
        asyncio.run(reset(Refusing(told, CommandReply(status="refused")), random.Random(1)))  # type: ignore[arg-type]
