"""The blocking client has the types of the async one: its stub is made from that, and leaves nothing out."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from perdure import Client, Handle, TaskHandle, sync
from tests.repo import sync_stub


def test_the_stub_is_as_the_async_classes_are() -> None:
    assert sync_stub.STUB.read_text(encoding="utf-8") == sync_stub.stub(), "run python -m tests.repo.sync_stub"


@pytest.mark.parametrize(
    ("cls", "after", "ends"),
    [
        (Client, "class SyncClient", ""),
        (Handle, "class SyncHandle", "class "),
        (TaskHandle, "class SyncTaskHandle", "class "),
    ],
)
def test_the_stub_has_every_method_and_attribute(cls: Any, after: str, ends: str) -> None:
    _, _, text = sync_stub.stub().partition(after)
    text = text.partition(f"\n{ends}")[0] if ends else text
    methods = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    assert methods
    assert {name for name in methods - sync_stub.ASYNC_ONLY if f"def {name}(" not in text} == set()
    attributes = set(re.findall(r"self\.([a-z]\w*) = ", inspect.getsource(cls.__init__)))
    assert attributes
    assert {name for name in attributes if f"    {name}: " not in text} == set()


def test_the_stub_has_the_names_of_the_module() -> None:
    for name in ("SyncClient", "SyncHandle", "SyncTaskHandle"):
        assert hasattr(sync, name)
        assert f"class {name}" in sync_stub.stub()
