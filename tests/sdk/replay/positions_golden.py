"""Positions as they were when first recorded: `python -m tests.sdk.replay.positions_golden` writes them anew.

A difference means that open runs break on upgrade; never rewrite the file to make a test pass.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.sdk.replay import shapes, world

FILE = Path(__file__).parent / "golden" / "positions.json"
SEEDS = (1, 2)


def observed() -> dict[str, list[str]]:
    return {
        f"{name} {seed}": lines(world.play(shape.workflow, seed, **shape.world))
        for name, shape in shapes.EVERY.items()
        for seed in SEEDS
    }


def lines(story: world.Story) -> list[str]:
    """One command each, as it came, and the end."""
    return [*map(line, story.transcript.lines), story.transcript.completion.decode()]


def line(command: world.Line) -> str:
    due = "" if command.due_at is None else f"+{command.due_at - world.STARTED_AT} ms"
    parts = [command.position, command.kind, command.name, command.value.decode(), due, command.digest, command.id]
    return " ".join(filter(None, parts))


if __name__ == "__main__":
    FILE.write_text(json.dumps(observed(), indent=1) + "\n", encoding="utf-8")
