"""Values that are told, and values that no message can hold."""

from __future__ import annotations

import pytest

from perdure import timer, workflow
from perdure._duration import DURATION_MAX_SECONDS
from perdure._replay.history import Record
from perdure.errors import WorkflowChangedError
from perdure_schemas.common import Command, Payload
from tests.sdk.replay.live import Live


@pytest.mark.parametrize(
    ("recorded", "now", "told"),
    [
        ("a" * 40, "b" * 40, f"recorded {'a' * 40}, now {'b' * 40}"),
        ("a" * 500 + "b", "a" * 500 + "c", f"recorded …{'a' * 30}b, now …{'a' * 30}c"),
        ("a" * 500, "b" * 500, f"recorded {'a' * 120}…, now {'b' * 120}…"),
        ("", "1", "recorded none, now 1"),
    ],
)
def test_arguments_that_differ_are_told_from_where_they_do(recorded: str, now: str, told: str) -> None:
    record = Record()
    args = [Payload("json", text.encode()) for text in (recorded, now)]
    record.load([Command(id="c", position="0", kind="task", name="echo", digest="then", args=args[0])])
    with pytest.raises(WorkflowChangedError) as raised:
        record.take("0", "task", "echo", "now", args=args[1])
    assert f"with other arguments: {told}. Guard" in str(raised.value)


def test_a_timer_beyond_what_a_message_can_say_is_refused_and_the_longest_is_not() -> None:
    async def code() -> None:
        with pytest.raises(ValueError, match="at most 3153600000000 seconds"):
            timer(1e18)
        await timer(DURATION_MAX_SECONDS)

    live = Live(workflow(code))
    (command,) = live.begin().commands
    assert command.due_at is not None
    assert command.due_at < 2**53
