"""What the chain of hashes tells apart."""

from __future__ import annotations

from perdure_core.workflow_engine.state import fold
from perdure_schemas.common import NULL, RunOptions
from perdure_schemas.events import CommandSettled, Recorded, Started


def _chain(fired_at: int) -> list[str]:
    started = Started(run_id="r", name="naps", args=NULL, options=RunOptions())
    fired = CommandSettled(command_id="timer", outcome="fired")
    history = [
        Recorded(seq=1, at=10, cause="start", event=started),
        Recorded(seq=2, at=fired_at, cause="timer-fired", event=fired),
    ]
    return fold("default", "w", 1, history).hashes


def test_a_message_made_again_at_another_time_is_another_event() -> None:
    """Workflow code sees the time: a turn on the one is no turn on the other (found by simulation, seed 13966)."""
    first, again = _chain(1_000), _chain(1_500)
    assert first[:2] == again[:2]
    assert first[2] != again[2]
    assert first == _chain(1_000)
