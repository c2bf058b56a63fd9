"""What holds for every test of the tree."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

# A test run is the same for everybody, on machines of any speed; HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Reports are made without garbage collection.

    To show a failure pytest parses its source. On CPython 3.11 parsing breaks (`SystemError: AST constructor
    recursion depth mismatch`) when a finalizer runs meanwhile and prints a traceback, which parses too; and some tests
    leave things behind that resist being closed, on purpose.
    """
    enabled = gc.isenabled()  # a fixture may have disabled it for the whole test, of which there are three reports
    gc.disable()
    try:
        return (yield)
    finally:
        if enabled:
            gc.enable()
