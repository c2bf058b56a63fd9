"""What the names in a function's source stand for."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from types import FunctionType, ModuleType
from typing import Any


class Unloaded:
    """A module imported inside the function that nobody has imported so far, or something of it."""

    def __init__(self, path: str) -> None:
        self.path = path


UNKNOWN = object()


class Names:
    """Looks names up as the function would: never calls anything, never imports anything."""

    def __init__(self, function: FunctionType, owner: type | None) -> None:
        self._globals = function.__globals__
        self._owner = owner
        self._closure: dict[str, Any] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._closure[name] = cell.cell_contents
            except ValueError:  # not bound yet
                self._closure[name] = UNKNOWN
        self._local: dict[str, Any] = {}

    def bind(self, tree: ast.AST) -> None:
        """Take note of what the function binds itself: to anything but what it imports we know nothing."""
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    self._local.setdefault(name, UNKNOWN)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    if node is not tree:
                        self._local.setdefault(name, UNKNOWN)
                case ast.Import(names=imported):
                    for each in imported:
                        path = each.name if each.asname else each.name.partition(".")[0]
                        self._local[each.asname or path] = _module(path)
                case ast.ImportFrom(module=module, names=imported, level=0):
                    for each in imported:
                        self._local[each.asname or each.name] = _member(_module(module or ""), each.name)
                case _:
                    pass

    def resolve(self, node: ast.AST) -> Any:
        """What an expression stands for; UNKNOWN if that depends on the run."""
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=attribute) if self._owner is not None:
                return inspect.getattr_static(self._owner, attribute, UNKNOWN)
            case ast.Attribute(value=value, attr=attribute):
                return _member(self.resolve(value), attribute)
            case ast.Name(id=name):
                return self._name(name)
            case _:
                return UNKNOWN

    def _name(self, name: str) -> Any:
        for scope in (self._local, self._closure, self._globals, vars(builtins)):
            if name in scope:
                return scope[name]
        return UNKNOWN


def _module(path: str) -> Any:
    return sys.modules.get(path) or Unloaded(path)


def _member(owner: Any, attribute: str) -> Any:
    if isinstance(owner, Unloaded):
        return Unloaded(f"{owner.path}.{attribute}")
    if isinstance(owner, ModuleType | type):
        found = inspect.getattr_static(owner, attribute, UNKNOWN)
        if found is UNKNOWN and isinstance(owner, ModuleType):
            path = f"{owner.__name__}.{attribute}"
            return sys.modules.get(path) or Unloaded(path)
        return found
    return UNKNOWN
