"""docs/reference/wire.md says what the schemas say."""

from __future__ import annotations

import os
from pathlib import Path

from tests.schemas import wire_page

PAGE = Path(__file__).parents[2] / "docs/reference/wire.md"
WRITE = "PERDURE_WRITE_GOLDEN"
"""Set this variable to renew the generated parts."""


def test_the_generated_parts_are_as_generated() -> None:
    page = PAGE.read_text("utf-8")
    if os.environ.get(WRITE):
        page = wire_page.renewed(page)
        PAGE.write_text(page, "utf-8")
    assert sorted(wire_page.parts(page)) == sorted(wire_page.PARTS)
    assert wire_page.renewed(page) == page


def test_a_part_that_is_out_of_date_is_found() -> None:
    page = PAGE.read_text("utf-8")
    for old, new in [("| `retryable` | boolean |", "| `retryable` | string |"), ("`timed-out`", "`late`")]:
        assert old in page
        changed = page.replace(old, new, 1)
        assert wire_page.renewed(changed) == wire_page.renewed(page) != changed
