"""Positions, ids and digests are those of the first release, on every Python and under every hash seed."""

from __future__ import annotations

import json

import pytest

from tests.sdk.replay import positions_golden, shapes, world

GOLDEN: dict[str, list[str]] = json.loads(positions_golden.FILE.read_text(encoding="utf-8"))


def test_every_shape_has_a_golden() -> None:
    assert GOLDEN.keys() == {f"{name} {seed}" for name in shapes.EVERY for seed in positions_golden.SEEDS}


@pytest.mark.parametrize("key", GOLDEN)
def test_positions_are_golden(key: str) -> None:
    name, seed = key.split()
    shape = shapes.EVERY[name]
    assert positions_golden.lines(world.play(shape.workflow, int(seed), **shape.world)) == GOLDEN[key]
