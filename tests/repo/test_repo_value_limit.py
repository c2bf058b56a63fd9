"""The limit of one value is named where users meet it, and as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.convert import PAYLOAD_BYTES_MAX

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "page",
    [
        "howto/begin.md",
        "howto/encrypt-payloads.md",
        "concepts/workflows-and-tasks.md",
        "reference/python.md",
        "reference/wire.md",
    ],
)
def test_pages_name_the_limit_of_one_value(page: str) -> None:
    assert f"{PAYLOAD_BYTES_MAX:,} bytes" in (ROOT / "docs" / page).read_text()
