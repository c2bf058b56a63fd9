"""docs/reference/cli.md says what the commands say."""

from __future__ import annotations

from perdure.cli.output import MEANINGS, ExitCode
from tests.cli.cli_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.cli.cli_page"


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(ExitCode)
