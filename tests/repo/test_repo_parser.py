"""The checks that parse the tree are not disturbed by what other tests left behind."""

from __future__ import annotations

import ast
import gc
import traceback

from tests.repo import tree

SOURCE = tree.PACKAGES["perdure_core"].joinpath("src/perdure_core/history.py").read_text(encoding="utf-8") * 5
"""Long enough for several collections."""


class Stubborn:
    """In a cycle, so that only the collector frees it; it then prints a traceback, as a closed coroutine may."""

    def __init__(self) -> None:
        self.cycle: Stubborn = self

    def __del__(self) -> None:
        try:
            raise ValueError("x" + str(1 + 2))
        except ValueError:
            traceback.format_exc()


def test_finalizers_do_not_run_while_the_tree_is_parsed() -> None:
    for _ in range(30):
        Stubborn()
    ast.parse(SOURCE)  # fails on CPython 3.11.7 when a finalizer runs meanwhile: see tests/conftest.py
    assert not gc.isenabled()
