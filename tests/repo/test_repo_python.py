"""docs/reference/python.md says what the code says, of every public name."""

from __future__ import annotations

import re
from collections import Counter

import pytest

import perdure
from tests.repo import python_docs
from tests.repo.python_page import PAGE, documented, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.repo.python_page"


def test_every_public_name_is_on_the_page() -> None:
    assert set(perdure.__all__) - documented() == set()


class Silent:
    def __init__(self, first: int) -> None:
        self.first = first
        """What it is made of."""

    def told(self, many: list[str], *, limit: int = 3) -> str:
        """What it does.

        Args:
            many: where a name
                goes on.

        Raises:
            KeyError, ValueError: it is wrong.
        """
        return ",".join(many[:limit])

    def untold(self) -> None: ...


def test_a_name_without_a_docstring_is_told() -> None:
    assert [name for name, _ in python_docs.methods(Silent)] == [], "only what is ours is looked at"
    with pytest.raises(python_docs.Undocumented, match="untold"):
        python_docs.text(Silent.untold, "untold")


def test_docstrings_become_lists_and_signatures_lose_what_says_nothing() -> None:
    assert python_docs.text(Silent.told, "told") == (
        "What it does.\n\n- `many`: where a name\n  goes on.\n\nRaises:\n\n- `KeyError`, `ValueError`: it is wrong."
    )
    assert python_docs.signature("told", Silent.told, bound=True) == "told(many: list[str], *, limit: int = 3) -> str"
    assert [each.meaning for each in python_docs.fields(Silent)] == ["What it is made of."]


def test_each_name_of_the_page_has_one_place() -> None:
    headings = re.findall(r"^### (.*)$", page(), re.MULTILINE)
    assert [name for name, times in Counter(headings).items() if times > 1] == []


@pytest.mark.parametrize("name", ["Recorded", "TaskChanged", "Failure", "Payload", "TaskStatus", "Event"])
def test_what_clients_are_given_is_told(name: str) -> None:
    assert re.search(rf"^(### {name}|\| `{name}` \|.*)$", page(), re.MULTILINE)
    assert "`Struct`" not in page(), "how they are made is no matter of the reader's"


def test_the_blocking_client_has_the_methods_of_the_client() -> None:
    assert "Its methods: `start`, `execute`, `handle`," in page()
