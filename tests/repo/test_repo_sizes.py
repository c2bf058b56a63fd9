"""Files, functions and classes stay small enough to read; tests too."""

from __future__ import annotations

import pytest

from tests.repo import sizes, tree


def test_everything_is_within_the_limits() -> None:
    found = [
        violation
        for path in tree.python_files()
        for violation in sizes.violations(tree.name_of(path), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n" * 501, "sample.py: 501 lines"),
        ("def f():\n" + "    x = 1\n" * 70, "f has 71 lines"),
        ("class C:\n    async def f(self):\n" + "        x = 1\n" * 70, "f has 71 lines"),
        ("class C:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(16)), "C has 16 methods"),
    ],
)
def test_what_is_too_large_is_found(source: str, expected: str) -> None:
    found = list(sizes.violations("sample.py", source))
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n" * 500,
        "def f():\n" + "    x = 1\n" * 69,
        'def f():\n    """' + "why\n" * 80 + '"""\n' + "    x = 1\n" * 60,
        "class C:\n" + "    @overload\n    def m(self): ...\n" * 16,
    ],
)
def test_what_is_just_small_enough_passes(source: str) -> None:
    assert not list(sizes.violations("sample.py", source))
