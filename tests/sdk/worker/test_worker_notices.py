"""What a worker tells of errors: the user's lines, once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import task
from perdure._worker.notices import STUCK_MAX, Lacking, Stuck
from perdure.failures import failure_from_exception
from perdure_schemas.common import Command, Failure


@dataclasses.dataclass
class Turn:
    run_id: str
    workflow_id: str = "order-1"
    name: str = "order"


@dataclasses.dataclass
class Failed:
    failure: Failure
    kind: str = "bug"


def told(stuck: Stuck, run_id: str, message: str, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    turn: Any = Turn(run_id)
    failed: Any = Failed(Failure(name="ValueError", message=message, stack='  File "shop.py", line 3, in order\n'))
    with caplog.at_level(logging.ERROR, logger="perdure.worker"):
        stuck.tell(turn, failed)
    (record,) = caplog.records
    return record.getMessage()


def test_a_traceback_is_told_once_for_each_run_and_error(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    assert told(stuck, "run-1", "no", caplog).endswith('\n  File "shop.py", line 3, in order\nValueError: no')
    for times in (2, 3):
        assert told(stuck, "run-1", "no", caplog) == (
            f"workflow_stuck: run order-1 of order again, {times} times by now: ValueError: no"
        )
    assert "shop.py" in told(stuck, "run-1", "another", caplog)
    assert "shop.py" in told(stuck, "run-1", "no", caplog), "it changed, and changed back"
    assert "shop.py" in told(stuck, "run-2", "another", caplog)


def test_another_object_is_no_other_error(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    assert "shop.py" in told(stuck, "run-1", "no <Order object at 0x7ff02c66db10>", caplog)
    assert "again, 2 times by now" in told(stuck, "run-1", "no <Order object at 0x7ff02c66da80>", caplog)


def test_an_error_without_a_message_is_its_name(caplog: pytest.LogCaptureFixture) -> None:
    assert told(Stuck(), "run-1", "", caplog).endswith("in order\nValueError")


@pytest.mark.parametrize(("name", "hinted"), [("TimeoutError", True), ("NonDeterminism", False)])
def test_who_meant_an_error_to_end_the_run_is_told_what_does(
    name: str, hinted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    turn: Any = Turn("run-1")
    failed: Any = Failed(Failure(name=name, message="no"))
    Stuck().tell(turn, failed)
    assert ("; to let the run fail on purpose, raise perdure.WorkflowError\n" in caplog.text) is hinted


def test_what_is_told_is_forgotten_when_it_is_too_much(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    for number in range(STUCK_MAX + 1):
        told(stuck, f"run-{number}", "no", caplog)
    assert "again" in told(stuck, f"run-{STUCK_MAX}", "no", caplog)
    assert "shop.py" in told(stuck, "run-0", "no", caplog)


def test_what_waits_for_another_worker_is_told_once_unless_the_app_leaves_it_to_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacking = Lacking(["pack"], [], elsewhere=["ship"])
    for name in ("pack", "ship", "fly", "fly"):
        lacking.look([Command(id=name, position=name, kind="task", name=name)], "order")
    (record,) = caplog.records
    assert "workflow order waits for task fly, which this worker does not have (it has: pack)" in record.getMessage()


@task
async def charge(cents: int) -> None: ...


def stack_of(call: Callable[[], object]) -> str:
    """Of the error that the call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # the tests look at what it is
        call()
    return failure_from_exception(caught.value.with_traceback(caught.tb.tb_next)).stack


def test_a_stack_has_no_frames_of_ours() -> None:
    stack = stack_of(lambda: charge.signature.bind([], {}))
    assert "charge.signature.bind([], {})" in stack
    assert stack.count("File ") == 1, stack


def test_what_may_be_a_defect_of_ours_has_all_frames() -> None:
    assert "in __getattr__" in stack_of(lambda: perdure.nothing)
