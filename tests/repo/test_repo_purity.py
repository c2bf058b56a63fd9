"""The core has no input, output, clock, randomness or logging, so that the same message gives the same decision."""

from __future__ import annotations

import pytest

from tests.repo import purity, tree


def test_the_core_is_pure() -> None:
    modules = sorted((tree.PACKAGES["perdure_core"] / "src").rglob("*.py"))
    assert modules
    found = [
        violation
        for path in modules
        for violation in purity.violations(tree.name_of(path), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import time\n", "imports time"),
        ("import asyncio.events as events\n", "imports asyncio.events"),
        ("def f():\n    from datetime import datetime\n", "imports datetime"),
        ("from logging import getLogger\n", "imports logging"),
        ("import random\n", "imports random"),
        ("import socket\n", "imports socket"),
        ("def f(path):\n    return open(path)\n", "calls open()"),
        ("def f(name):\n    return hash(name)\n", "calls hash()"),
        ("async def f(): ...\n", "is asynchronous"),
        ("n = 0\ndef f():\n    global n\n    n += 1\n", "changes a global"),
    ],
)
def test_what_is_impure_is_found(source: str, expected: str) -> None:
    found = list(purity.violations("sample.py", source))
    assert len(found) == 1
    assert expected in found[0]
