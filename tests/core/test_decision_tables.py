"""The published decision tables are what the code does."""

from __future__ import annotations

import pytest

from tests.core.decision_table import COMMAND, ROOT, Table, render, tables


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.path)
def test_the_page_is_what_the_code_does(table: Table) -> None:
    path = ROOT / table.path
    assert path.read_text("utf-8") == render(table), f"{table.path} is out of date: run `{COMMAND}`"
