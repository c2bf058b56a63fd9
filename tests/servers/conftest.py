"""Shared by the tests on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import provision


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """For who measures: no cluster is being broken beside it."""
    with provision.alone():
        yield
