"""These tests parse the whole tree, which must not be interrupted by the finalizers of what other tests left behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def without_garbage_collection() -> Iterator[None]:
    """As for reports: see tests/conftest.py. Frozen, too: a thread that a test left behind may enable it again."""
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
