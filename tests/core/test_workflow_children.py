"""The build of a child: the one its parent asks for, its parent's own, or none: then the routing record decides."""

from __future__ import annotations

from typing import Any

import pytest

from perdure_schemas.messages import StartWorkflow
from tests.core.workflow_case import Case, start


@pytest.mark.parametrize(
    ("fields", "build"),
    [
        ({}, None),
        ({"build_policy": "inherit"}, "b-parent"),
        ({"build": "b-child"}, "b-child"),
        ({"build": "b-child", "build_policy": "inherit"}, "b-child"),
    ],
)
def test_the_build_of_a_child(fields: dict[str, Any], build: str | None) -> None:
    case = Case()
    case.send(start(build="b-parent"))
    reaction = case.turn(case.command("0", "child", child_id="kid", **fields))
    assert [child.build for child in reaction.sent(StartWorkflow)] == [build]
