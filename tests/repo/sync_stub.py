"""sdk/src/perdure/sync.pyi, made from the async classes. `python -m tests.repo.sync_stub` writes it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.repo import commands

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk/src/perdure"
STUB = SDK / "sync.pyi"
HEADER = """\
# Made from the async classes by `python -m tests.repo.sync_stub`; a test compares.

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, overload

from perdure._options import Started, StartedAndWaited
from perdure.client import Client, HasRunPositional, Issued
from perdure.handle import SignalChannel
from perdure.task import Task
from perdure.workflow import HasRun, Workflow
from perdure_runtime.ports import RunFilter, RunPage
from perdure_schemas.events import Recorded
from perdure_schemas.messages import RunChanged, TaskChanged

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
"""
OPENING = """\
def __init__(self, client: Client) -> None: ...
def __enter__(self) -> Self: ...
def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None: ...
"""
CLASSES = {
    "SyncHandle(Generic[R])": ("id: str\nrun_id: str\nexisting: bool\n", {
        "handle.py": "Handle", "_client/control.py": "Steering", "_client/looking.py": "Looking",
    }),
    "SyncTaskHandle(Generic[R])": ("id: str\nname: str\n", {"handle.py": "TaskHandle"}),
    "SyncClient": ("id: str\n" + OPENING, {"client.py": "Client"}),
}  # fmt: skip
"""What stands in each class of the stub beside the methods, and whose methods these are, by module."""
ASYNC_ONLY = {"embedded", "connect", "sync"}
"""Of the async client: how a client is made."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def stub() -> str:
    """The file as it must be, formatted."""
    parts = [HEADER]
    for name, (beside, sources) in CLASSES.items():
        methods = [method for module, cls in sources.items() for method in _methods(module, cls)]
        lines = "\n".join([beside, *methods]).splitlines()
        parts.append("\n".join([f"class {name}:", *(f"    {line}" for line in lines)]))
    config = str(ROOT / "pyproject.toml")
    command = [str(commands.BIN / "ruff"), "format", "--config", config, "--stdin-filename", str(STUB), "-"]
    given = "\n".join(parts)
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60).stdout


def _methods(module: str, cls: str) -> Iterator[str]:
    tree = ast.parse((SDK / module).read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    functions = [node for node in found.body if isinstance(node, Function) and not node.name.startswith("_")]
    overloaded = {each.name for each in functions if each.decorator_list}
    for function in functions:
        if function.name not in ASYNC_ONLY and (function.decorator_list or function.name not in overloaded):
            yield _blocking(function)


def _blocking(function: Function) -> str:
    defaults = function.args.kw_defaults
    function.args.kw_defaults = [each and _default(each) for each in defaults]
    function.args.defaults = [_default(each) for each in function.args.defaults]
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in {"Handle", "TaskHandle"}:
            node.id = f"Sync{node.id}"
    function.body = [ast.Expr(ast.Constant(...))]
    return ast.unparse(function).removeprefix("async ").replace("\nasync def", "\ndef")


def _default(value: ast.expr) -> ast.expr:
    return value if isinstance(value, ast.Constant) else ast.Constant(...)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
