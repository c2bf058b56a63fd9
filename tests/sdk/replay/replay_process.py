"""A fresh process with a heap of its own: replays histories and tells what came out.

    python -m tests.sdk.replay.replay_process HISTORIES [stock-hash]   # a file written by `write`

Prints a JSON object: per story, a digest of the commands it issues when played anew and when replayed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path

import msgspec

from perdure._replay.futures import Branch, ReplayFuture
from perdure_schemas.events import Recorded, TurnCommitted
from tests.sdk.replay import shapes, world

Told = dict[str, str]


class Kept(msgspec.Struct):
    """A story as a file holds it."""

    name: str
    seed: int
    history: list[Recorded]


def write(path: Path, seeds: range) -> Told:
    """Play every shape, keep the histories, and tell what came out here."""
    kept: list[Kept] = []
    for name, shape in shapes.EVERY.items():
        for seed in seeds:
            story = world.play(shape.workflow, seed, **shape.world)
            cut = world.cut(shape.workflow, story.events, _ends(seed, len(story.events)))
            kept.append(Kept(name, seed, cut.history))
    path.write_bytes(msgspec.json.encode(kept))
    return {f"{each.name} {each.seed}": told(each) for each in kept}


def _ends(seed: int, count: int) -> list[int]:
    chance = random.Random(seed)
    return sorted({chance.randrange(1, count + 1) for _ in range(count // 2)} | {count})


def told(kept: Kept) -> str:
    """Played anew, and replayed: in replay every command must be issued as recorded, or the turn is a stoppage."""
    shape = shapes.EVERY[kept.name]
    anew = world.play(shape.workflow, kept.seed, **shape.world).transcript
    replayed = world.instance_of(shape.workflow)
    last = max(index for index, record in enumerate(kept.history) if isinstance(record.event, TurnCommitted))
    replayed.replay(kept.history[:last])
    turn = replayed.turn(kept.history[last:], base=last, generation=0)
    replayed.evict()
    assert turn.stoppage is None, turn.stoppage
    lines = [*anew.lines, *map(world.Line.of, turn.commands)]
    return hashlib.sha256(repr((lines, anew.completion, world.ended(turn.completion))).encode()).hexdigest()


def _fragment() -> list[object]:
    """Other holes in the heap than in any process before."""
    chance = random.Random(os.urandom(8))
    heap = [bytearray(chance.randrange(16, 500)) for _ in range(20_000)]
    return [each for each in heap if chance.random() < 0.4]


if __name__ == "__main__":
    ballast = _fragment()
    if sys.argv[2:] == ["stock-hash"]:  # the control
        ReplayFuture.__hash__ = Branch.__hash__ = object.__hash__  # type: ignore[method-assign]
    stories = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[Kept])
    print(json.dumps({f"{each.name} {each.seed}": told(each) for each in stories}))
