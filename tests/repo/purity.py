"""What the core may use. A list of what is allowed, since a list of what is forbidden is never complete."""

from __future__ import annotations

import ast
from collections.abc import Iterator

ALLOWED_IMPORTS = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "msgspec",
    "operator",
    "perdure_core",
    "perdure_schemas",
    "typing",
    "types",
}
FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint", "id", "hash"}
"""Input, output and what differs between two processes: `hash` of a string is salted, `id` is an address."""


def violations(name: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        for module in _imported(node):
            if module.partition(".")[0] not in ALLOWED_IMPORTS:
                yield f"{name}:{line}: imports {module}"
        match node:
            case ast.Call(func=ast.Name(id=called)) if called in FORBIDDEN_CALLS:
                yield f"{name}:{line}: calls {called}()"
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield f"{name}:{line}: is asynchronous"
            case ast.Global():
                yield f"{name}:{line}: changes a global"
            case _:
                pass


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case _:
            return []
