"""Limits on sizes. A reader can hold so much and no more, and what is over a limit does two things."""

from __future__ import annotations

import ast
from collections.abc import Iterator

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
"""Without the docstring: to explain must cost nothing."""
CLASS_METHODS_MAX = 15

Function = ast.FunctionDef | ast.AsyncFunctionDef


def violations(name: str, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{name}: {lines} lines, at most {FILE_LINES_MAX}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            length = function_lines(node)
            if length > FUNCTION_LINES_MAX:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES_MAX}"
        elif isinstance(node, ast.ClassDef):
            methods = sum(isinstance(member, Function) and not _is_overload(member) for member in node.body)
            if methods > CLASS_METHODS_MAX:
                yield f"{name}:{node.lineno}: {node.name} has {methods} methods, at most {CLASS_METHODS_MAX}"


def function_lines(node: Function) -> int:
    length = _lines(node)
    if ast.get_docstring(node, clean=False) is not None:
        length -= _lines(node.body[0])
    return length


def _lines(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _is_overload(node: Function) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list)
