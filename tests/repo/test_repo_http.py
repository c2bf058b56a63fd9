"""The page of the HTTP API is what its OpenAPI document says."""

from __future__ import annotations

import pytest

from tests.repo.http_page import PAGE, document, renewed


def test_the_generated_parts_are_as_generated() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == renewed(page, document()), "run: python -m tests.repo.http_page"


@pytest.mark.parametrize(
    ("old", "new"), [("| `reason` | string |", "| `reason` | number |"), ("### POST /tasks\n", "### PUT /tasks\n")]
)
def test_a_part_that_is_out_of_date_is_found(old: str, new: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert old in page
    changed = page.replace(old, new, 1)
    assert renewed(changed, document()) == renewed(page, document()) != changed
