"""The page of resources is what the definitions and the operator say."""

from __future__ import annotations

from typing import get_args

import pytest

from perdure_operator.status import ConditionReason, ConditionType
from tests.repo import resources_page
from tests.repo.resources_page import CONDITIONS, PAGE, definition, page, rows


def test_the_page_is_what_the_definitions_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.repo.resources_page"


@pytest.mark.parametrize("plural", ["connections", "workers", "workflows"])
def test_every_field_says_what_it_means(plural: str) -> None:
    (version,) = definition(plural)["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    told = [row for section in ("spec", "status") if section in properties for row in rows(properties[section])]
    assert len(told) > 5
    assert [path for path, field, _ in told if not field.get("description")] == []


def test_every_condition_and_reason_is_told_once() -> None:
    assert tuple(CONDITIONS) == get_args(ConditionType)
    reasons = [reason for _, told in CONDITIONS.values() for reason in told]
    assert sorted(reasons) == sorted(get_args(ConditionReason))


def test_a_field_that_must_be_given_and_one_of_a_list_are_told() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string"},
        "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}},
    }}  # fmt: skip
    assert [(path, required) for path, _, required in resources_page.rows(schema)] == [
        ("a", True), ("b", False), ("b[].c", False),
    ]  # fmt: skip
