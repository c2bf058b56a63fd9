"""`perdure show`: failed attempts, what people corrected, what a rewind issued again, and what is superseded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from perdure.cli import attempts, timeline
from perdure.cli.rows import rows, silent
from perdure_schemas.common import Command, Completion, Failure, Payload, WaitsFor
from perdure_schemas.events import CommandSettled, Edit, Event, Recorded, Rewound, RunEnded, TurnCommitted
from perdure_schemas.messages import TaskChanged
from tests.cli.dev_process import ENVIRONMENT, Dev, running_dev, until

APP = """
from perdure import Retry, task, workflow

@task(retry=Retry(attempts=5, initial=600.0, max=600.0))
async def parse(text: str) -> int:
    return int(text)

@workflow
async def patient(text: str) -> int:
    return await parse(text)
"""
FAILURE = Failure(name="ValueError", message="no", cause=Failure(name="KeyError", message="other"))


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "shown_app.py").write_text(APP)
    with running_dev(folder / "shown_app.py", folder / "dev.sqlite") as running:
        yield running


def test_a_task_between_two_attempts_tells_why_the_last_failed_and_when_the_next_comes(dev: Dev) -> None:
    dev.perdure("start", "patient", '"seven"', "--id", "p")
    until(lambda: [task["status"] for task in dev.perdure("show", "p")["tasks"]] == ["waiting-retry"])
    (task,) = dev.perdure("show", "p")["tasks"]
    assert (task["position"], task["task"], task["status"], task["attempt"]) == ("0", "parse", "waiting-retry", 2)
    assert (task["failed_attempts"], task["last_failure"][:10]) == (1, "ValueError")
    assert 250_000 < task["next_attempt_at"] - task["at"] < 1_000_000
    command = [sys.executable, "-m", "perdure.cli", "show", "p", "-o", "table", "--db", str(dev.database)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=60).stdout
    assert "tasks under way" in told
    assert f"attempt 2 at {timeline.clock(task['next_attempt_at'])}" in told
    assert "attempt 1: ValueError: invalid literal" in told


def recorded(*events: Event, causes: dict[int, str] | None = None) -> list[Recorded]:
    return [
        Recorded(seq=seq, at=seq, cause=(causes or {}).get(seq, str(seq)), event=event)
        for seq, event in enumerate(events, 1)
    ]


def turn(*commands: Command, generation: int = 0) -> TurnCommitted:
    return TurnCommitted(
        workflow_task_id="", base=0, nonce="", generation=generation, commands=list(commands), waits_for=WaitsFor()
    )


def task(id: str, args: str = "[1]") -> Command:
    return Command(id=id, position=f"at-{id}", kind="task", name=id, args=Payload("json", args.encode()))


def failing(id: str) -> RunEnded:
    return RunEnded(
        status="failed", failure=FAILURE, completion=Completion(status="failed", failure=FAILURE, command_id=id)
    )


def resumed(*edits: Edit, more: tuple[Event, ...] = (), causes: dict[int, str] | None = None) -> list[dict[str, Any]]:
    """Of task a, which failed, with the run; then resumed."""
    failed = CommandSettled(command_id="a", outcome="failed", failure=FAILURE, attempt=3)
    rewound = Rewound(to_seq=1, generation=1, reason="", actor="", edits=list(edits))
    return rows(recorded(turn(task("a")), failed, turn(), failing("a"), rewound, *more, causes=causes))


def test_a_dispatch_after_a_resume_is_a_row_and_its_edited_arguments_are_marked() -> None:
    (again,) = [row for row in resumed() if row["event"] == "task dispatched again"]
    assert (again["position"], again["id"], again["detail"]) == ("at-a", "a", "a(1)")
    told = resumed(Edit(position="at-a", args=Payload("json", b"[2]")))
    (again,) = [row for row in told if row["event"] == "task dispatched again"]
    assert again["detail"] == "a(2)   edited, the code gives (1)"
    (rewound,) = [row for row in told if row["event"] == "rewound"]
    assert rewound["detail"] == "to event 1, generation 1   edit at-a: (2)"


def test_a_result_given_by_skip_is_marked_and_nothing_is_dispatched_again() -> None:
    nine = Payload("json", b"9")
    skipped = CommandSettled(command_id="a", outcome="skipped", result=nine)
    told = resumed(Edit(position="at-a", result=nine), more=(skipped,), causes={5: "resume", 6: "resume"})
    assert [row["event"] for row in told][-2:] == ["rewound", "task skipped"]
    assert told[-2]["detail"].endswith("skip at-a: 9")
    assert told[-1]["detail"] == "a → 9   given by a person"


def test_errors_of_an_earlier_generation_are_told_once_and_as_superseded() -> None:
    told = resumed()
    assert [row["event"] for row in told if row.get("superseded")] == ["task failed", "failed"]
    assert [row["detail"] for row in told if row.get("superseded")] == [
        "a (attempt 3) → ValueError: no\n  caused by KeyError: other",
        "ValueError: task a at at-a",
    ]


def test_edits_given_at_a_reset_are_marked_where_the_task_is_issued_anew() -> None:
    edit = Edit(position="at-a", args=Payload("json", b"[2]"))
    reset = Rewound(to_seq=0, generation=1, reason="", actor="", edits=[edit], position="at-a")
    told = rows(recorded(turn(task("a")), reset, turn(Command(**{**_fields(task("a")), "id": "b"}), generation=1)))
    assert [row["detail"] for row in told if row["event"] == "task dispatched"] == [
        "a(1)",
        "a(2)   edited, the code gives (1)",
    ]


def _fields(command: Command) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}


def test_numbers_without_a_row_are_explained() -> None:
    history = recorded(turn(task("a")), turn(), turn())
    assert silent(history) == "no row: 2, 3, where the code ran and issued nothing"
    assert silent(history[:1]) == ""
    assert silent(recorded(*[turn()] * 11)) == (
        "no row: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …, where the code ran and issued nothing"
    )


def test_a_cause_that_the_message_tells_already_is_not_told_again() -> None:
    cause = Failure(name="ValueError", message="no")
    wrapped = Failure(name="TaskFailed", message="task a failed: ValueError: no", cause=cause)
    assert timeline.failure_text(wrapped) == "TaskFailed: task a failed: ValueError: no"


def test_a_task_whose_outcome_the_history_has_is_not_under_way() -> None:
    known = TaskChanged(task_id="a", name="a", version=1, status="running", attempt=2, at=0, failure=FAILURE)
    history = recorded(turn(task("a")))
    (row,) = attempts.under_way([known], history)
    assert (row["failed_attempts"], row["next_attempt_at"]) == (1, None)
    done = CommandSettled(command_id="a", outcome="completed")
    assert attempts.under_way([known], recorded(turn(task("a")), done)) == []
