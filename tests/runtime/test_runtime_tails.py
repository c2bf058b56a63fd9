"""How much of what lies beside heads is remembered."""

from __future__ import annotations

from typing import cast

import pytest

from perdure_runtime.adapters.cassandra import tails
from perdure_runtime.adapters.cassandra.archives import Archives
from perdure_runtime.ports import RunKey


def test_workflow_ids_that_are_never_loaded_are_forgotten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "_SIZES_MAX", 10)
    known = tails.Tails(cast(Archives, None))
    for number in range(100):
        known.grown(RunKey("ns", str(number)), 1)
    assert len(known._sizes) == 10
