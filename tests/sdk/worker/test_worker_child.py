"""What a task process runs, found by name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from perdure._worker.child import Call, resolve, run
from perdure.task import task
from tests.sdk.worker.engine import json, value

APP = """
from perdure.task import task

@task(mode="process")
def add(a: int, b: int) -> int:
    return a + b

if __name__ == "__main__":
    raise SystemExit("the program was started once more")
"""


def call(module: str, file: str, qualname: str = "add", *args: object) -> Call:
    return Call(
        module=module,
        file=file,
        qualname=qualname,
        name="add",
        args=json(*args),
        non_retryable=[],
        path=list(sys.path),
    )


@pytest.fixture
def app(tmp_path: Path) -> str:
    path = tmp_path / "json_app.py"
    path.write_text(APP)
    return str(path)


@pytest.mark.parametrize("module", ["__main__", "json_app", "plistlib"])
def test_an_app_given_as_a_file_is_loaded_from_it(module: str, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name: `plistlib` is one of the standard library, too, and not what is meant."""
    monkeypatch.setattr("perdure._worker.child._LOADED", {})
    for name in {module, "__perdure_main__"} - {"__main__"}:
        monkeypatch.setitem(sys.modules, name, sys)  # to have it as it was, or away, at the end
        del sys.modules[name]
    result = run(call(module, app, "add", 2, 3))
    assert value(result.result) == 5


def test_a_function_that_is_no_task_by_its_name_fails_for_good() -> None:
    result = run(call("os", os.__file__, "getcwd"))
    assert result.failure is not None
    assert not result.failure.retryable
    assert "is no task" in result.failure.message


@task(mode="process")
def here() -> int:
    return 1


def test_a_module_that_can_be_imported_is() -> None:
    assert resolve(call(__name__, __file__, "here")) is here
