"""Lists fit the terminal, and histories are told in full."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from perdure.cli import timeline
from perdure.cli.listings import Row, listing
from perdure.cli.rows import rows as history_rows
from perdure_schemas.common import Command, Payload, WaitsFor
from perdure_schemas.events import CommandSettled, Recorded, SignalReceived, TurnCommitted

HEADINGS = ("ID", "WORKFLOW", "STATUS", "STARTED", "TOOK")
CHILD = "child-a1d2da60741ceef35c90c588f220534b"
ROWS: list[Row] = [
    ((CHILD, "welcome", "[red]failed[/]", "19:58:14", "0.067 s"), "TaskFailed: task greet failed: bad [name]"),
    (("order-1", "order", "running", "19:58:11", "2 s"), ""),
]


def printed(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(listing(ROWS, HEADINGS, "ERROR", width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_wide_terminal_has_the_note_beside() -> None:
    head, child, other = printed(160)
    assert head.split() == [*HEADINGS, "ERROR"]
    assert child.endswith("0.067 s  TaskFailed: task greet failed: bad [name]")
    assert other.split() == ["order-1", "order", "running", "19:58:11", "2", "s"]


def test_a_narrower_one_has_it_below_and_the_times_too() -> None:
    head, child, note, _ = printed(100)
    assert head.split() == [*HEADINGS]
    assert child.split() == [CHILD, "welcome", "failed", "19:58:14", "0.067", "s"]
    assert note == "  TaskFailed: task greet failed: bad [name]"


@pytest.mark.parametrize(
    ("width", "headings"), [(75, "ID WORKFLOW STATUS TOOK"), (60, "ID STATUS TOOK"), (50, "ID STATUS")]
)
def test_columns_are_left_out_in_order_of_their_worth(width: int, headings: str) -> None:
    head, child, *_ = printed(width)
    assert head.split() == headings.split()
    assert child.startswith(CHILD)


def test_a_tiny_one_folds_the_id_alone() -> None:
    head, *rest = printed(30)
    assert head.split() == ["ID", "STATUS"]
    assert rest[0].split() == [CHILD[:21], "failed"]
    assert rest[1] == CHILD[21:]
    assert max(map(len, rest)) <= 30


def _json(text: str) -> Payload:
    return Payload("json", text.encode())


def _turn(*commands: Command) -> Recorded:
    waits = WaitsFor(groups=[], channels=[])
    turn = TurnCommitted(
        workflow_task_id="t", base=1, nonce="n", generation=0, commands=list(commands), waits_for=waits
    )
    return Recorded(seq=2, at=0, cause="", event=turn)


def _command(kind: str, position: str = "0", **facts: object) -> Command:
    return Command(id=f"id-{position}", position=position, kind=kind, digest="", **facts)  # type: ignore[arg-type]


def test_a_child_has_its_id_whoever_gave_it() -> None:
    made_up = _command("child", name="welcome", args=_json('["x"]'))
    given = _command("child", "1", name="welcome", args=_json('["x"]'), child_id="mine")
    details = [row["detail"] for row in history_rows([_turn(made_up, given)])]
    assert details == ['welcome("x") as child-id-0', 'welcome("x") as mine']


def test_a_cancel_names_what_it_cancels() -> None:
    task = _command("task", name="export", args=_json("[]"))
    rows = history_rows([_turn(task, _command("cancel", "0!", target=task.id))])
    assert [row["detail"] for row in rows] == ["export()", "export at 0"]
    assert [row["id"] for row in rows] == ["id-0", "id-0!"]


def test_a_long_value_is_cut_visibly() -> None:
    (row,) = history_rows([_turn(_command("task", name="ship", args=_json(f'["{"x" * 100}"]')))])
    assert row["detail"].endswith("x…)")
    assert len(row["detail"]) == len("ship()") + timeline.VALUE_CHARS_MAX


def test_programs_get_a_long_value_whole() -> None:
    long = "x" * 100
    value = _json(f'"{long}"')
    events = [
        _turn(
            _command("task", name="ship", args=_json(f'["{long}"]')), _command("inline", "1", name="pick", args=value)
        ),
        Recorded(seq=3, at=0, cause="", event=SignalReceived(channel="votes", payload=value, sender="", number=0)),
        Recorded(seq=4, at=0, cause="", event=CommandSettled(command_id="id-0", outcome="completed", result=value)),
    ]
    told = [row["detail"] for row in history_rows(events, shown=timeline.whole)]
    assert told == [f'ship("{long}")', f'pick = "{long}"', f'votes: "{long}"', f'ship → "{long}"']


def test_a_signal_of_null_says_so() -> None:
    signal = SignalReceived(channel="votes", payload=_json("null"), sender="", number=0)
    (row,) = history_rows([Recorded(seq=1, at=0, event=signal, cause="")])
    assert row["detail"] == "votes: null"
