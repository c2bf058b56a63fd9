"""The code of a workflow, read before it runs: what it calls, and what its helpers call."""

from __future__ import annotations

import ast
import gc
import inspect
import textwrap
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from perdure._replay.guard.names import Names
from perdure._replay.guard.rules import Finding, Rules

HELPERS_MAX = 500
"""Functions of the workflow's own package that are read along with it."""


@dataclass(slots=True)
class Checked:
    """What was found in one workflow."""

    findings: list[Finding] = field(default_factory=list)
    codes: set[CodeType] = field(default_factory=set)
    """The code objects that were read."""


_checked: weakref.WeakKeyDictionary[Any, Checked] = weakref.WeakKeyDictionary()


def check(target: Callable[..., Any] | type) -> Checked:
    """Read a workflow's function or class, and the functions of its own package that it calls."""
    found = _checked.get(target)
    if found is None:
        found = _checked[target] = _read(target)
    return found


def _read(target: Callable[..., Any] | type) -> Checked:
    checked = Checked()
    package = (target.__module__ or "").partition(".")[0]
    owner = target if isinstance(target, type) else None
    waiting = _functions(target)
    seen = {function.__code__ for function in waiting}
    while waiting and len(seen) <= HELPERS_MAX:
        function = waiting.pop(0)
        checked.codes |= set(_codes(function.__code__))
        tree = _parsed(function)
        if tree is None:
            continue
        names = Names(function, owner)
        rules = Rules(names, function.__code__.co_filename)
        rules.read(tree)
        checked.findings += rules.findings
        for helper in rules.called:
            if helper.__code__ not in seen and (helper.__module__ or "").partition(".")[0] == package:
                seen.add(helper.__code__)
                waiting.append(helper)
    return checked


def _functions(target: Callable[..., Any] | type) -> list[FunctionType]:
    members = vars(target).values() if isinstance(target, type) else [inspect.unwrap(target)]
    return [member for member in members if isinstance(member, FunctionType)]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _parsed(function: FunctionType) -> ast.AST | None:
    """Its syntax tree, with the line numbers of its file; `None` where there is no source, or no whole statement."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = _undisturbed(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    ast.increment_lineno(tree, first - 1)
    return tree.body[0] if isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef) else None


def _undisturbed(text: str) -> ast.Module:
    """Without garbage collection: CPython 3.11 fails to parse (`SystemError: AST constructor recursion depth mismatch`)
    when a finalizer prints a traceback meanwhile, which parses, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if enabled:
            gc.enable()
