"""What is wrong in a workflow's code, line by line."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from perdure._replay.guard.forbidden import FUNCTIONS, IO_MODULES, IO_PACKAGES, NOW, TASK, Forbidden, is_moment
from perdure._replay.guard.names import UNKNOWN, Names, Unloaded
from perdure._replay.guard.traps import TRAP
from perdure.task import Task

_ORDERED_USES = (list, tuple, enumerate, iter, next)
_ORDERLESS_USES = (sorted, len, sum, min, max, any, all, set, frozenset)
"""Calls whose result does not depend on the order of what they are given."""
_SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that would, or may, come out differently in replay."""

    file: str
    line: int
    what: str
    remedy: str
    certain: bool = True
    """Whether it does so in every run; what only may is never refused."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}. {self.remedy}"


class Rules(ast.NodeVisitor):
    """Walks the tree of one function."""

    def __init__(self, names: Names, file: str) -> None:
        self.findings: list[Finding] = []
        self.called: list[FunctionType] = []
        """Python functions that it calls."""
        self._names = names
        self._file = file
        self._sets: set[str] = set()
        """Local names that stand for sets, wherever they are bound."""

    def read(self, tree: ast.AST) -> None:
        """Look at a whole function."""
        self._names.bind(tree)
        self._sets = _set_names(tree, self._is_set)
        for child in ast.iter_child_nodes(tree):
            if not (isinstance(child, ast.expr) and child in getattr(tree, "decorator_list", ())):
                self.visit(child)

    def _add(self, node: ast.AST, what: str, remedy: str, *, certain: bool = True) -> None:
        finding = Finding(self._file, getattr(node, "lineno", 0), what, remedy, certain)
        if finding not in self.findings:
            self.findings.append(finding)

    # --- calls ------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        callee = self._names.resolve(node.func)
        forbidden = self._forbidden(node, callee)
        if forbidden is not None:
            name, remedy = forbidden
            self._add(node, f"{name} comes out differently in replay", remedy)
        elif _is_body_of_task(node.func, self._names):
            self._add(
                node,
                f"{ast.unparse(node.func)}(...) runs the task's function in the workflow: nothing records its result",
                f"Call {ast.unparse(node.func).removesuffix('.fn')}(...).",
                certain=False,
            )
        elif isinstance(callee, FunctionType):
            if callee.__module__ == "perdure.flow" and callee.__name__ == "inline":
                self.visit(node.func)
                return  # what is given to it may do what it likes
            self.called.append(callee)
        elif _is_one_of(callee, _ORDERED_USES) and node.args and self._is_set(node.args[0]):
            self._add_set(node)
        if _is_one_of(callee, _ORDERLESS_USES):
            for argument in node.args:
                self._visit_orderless(argument)
        else:
            self.generic_visit(node)

    def _forbidden(self, node: ast.Call, callee: Any) -> tuple[str, str] | None:
        if isinstance(node.func, ast.Attribute):
            owner = self._names.resolve(node.func.value)
            if is_moment(owner, node.func.attr):
                return f"{owner.__name__}.{node.func.attr}()", NOW
            if _does_io(owner):
                return f"{ast.unparse(node.func)}()", TASK
        if callee is UNKNOWN or callee is None:
            return None
        found = _known(callee)
        if found is not None:
            return found.name, found.remedy
        return (f"{ast.unparse(node.func)}()", TASK) if _does_io(callee) else None

    # --- order of sets --------------------------------------------------------------------------------------

    def _is_set(self, node: ast.AST) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self._sets
            case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in _SET_METHODS:
                return self._is_set(value)
            case ast.Call(func=function):
                return _is_one_of(self._names.resolve(function), (set, frozenset))
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return self._is_set(left) or self._is_set(right)
            case _:
                return False

    def _add_set(self, node: ast.AST) -> None:
        self._add(node, "the order of a set may differ in replay", "Iterate over sorted(...).", certain=False)

    def visit_For(self, node: ast.For) -> None:
        if self._is_set(node.iter):
            self._add_set(node)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        if self._is_set(node.iter):
            self._add_set(node.iter)
        self.generic_visit(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._visit_orderless(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if self._is_set(node.value):
            self._add_set(node)
        self.generic_visit(node)

    def _visit_orderless(self, node: ast.AST) -> None:
        """In what forgets the order of what it is given, iterating over a set is fine, but for commands on the way."""
        if isinstance(node, ast.GeneratorExp | ast.SetComp | ast.ListComp):
            if _issues(node, self._names):
                self.generic_visit(node)
                return
            self.visit(node.elt)
            for generator in node.generators:
                for part in ast.iter_child_nodes(generator):
                    self.visit(part)
        else:
            self.visit(node)

    # --- what lives longer than the run ------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute | ast.Name) -> None:
        if _is_one_of(self._names.resolve(node), (os.environ, os.getenv)):
            self._add(
                node,
                f"{ast.unparse(node)} may be another in the next process that goes on with the run",
                "Let inline(...) read it, which records it, or pass what it says as an argument.",
                certain=False,
            )
        self.generic_visit(node)

    visit_Name = visit_Attribute  # noqa: N815 - the name that ast.NodeVisitor looks for

    def visit_Global(self, node: ast.Global) -> None:
        self._add(
            node,
            f"global {', '.join(node.names)} is shared by all runs of this worker, and changed again by each replay",
            "Keep it in the workflow, or in a store that tasks use.",
            certain=False,
        )

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        caught = [BaseException] if node.type is None else [self._names.resolve(each) for each in _types(node.type)]
        raises = any(isinstance(each, ast.Raise) for each in ast.walk(node))
        if not raises and any(_is_one_of(each, (BaseException, GeneratorExit)) for each in caught):
            self._add(
                node,
                "this also catches what closes the run when its worker needs the memory",
                "Catch Exception, or asyncio.CancelledError; or raise it again.",
                certain=False,
            )
        self.generic_visit(node)


def _is_body_of_task(function: ast.expr, names: Names) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "fn"
        and isinstance(names.resolve(function.value), Task)
    )


def _issues(node: ast.AST, names: Names) -> bool:
    """Whether it waits for something, or calls a task."""
    inside = list(ast.walk(node))
    called = (names.resolve(each.func) for each in inside if isinstance(each, ast.Call))
    return any(isinstance(each, ast.Await) for each in inside) or any(isinstance(each, Task) for each in called)


def _types(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _set_names(tree: ast.AST, is_set: Any) -> set[str]:
    """Names that are bound to sets and to nothing else."""
    sets: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                (sets if is_set(value) else others).add(name)
            case ast.For(target=ast.Name(id=name)) | ast.arg(arg=name):
                others.add(name)
            case _:
                pass
    return sets - others


def _is_one_of(callee: Any, known: tuple[Any, ...]) -> bool:
    """By identity: what is asked about may define any equality."""
    return any(callee is each for each in known)


def _known(callee: Any) -> Forbidden | None:
    if isinstance(callee, FunctionType):
        trap = getattr(callee, TRAP, None)
        if isinstance(trap, Forbidden):
            return trap
    return next((each for each in FUNCTIONS if each.function is callee), None)


def _does_io(thing: Any) -> bool:
    """Whether it belongs to a package that reaches the outside: a module, a class, a function, or an object of its."""
    if thing is UNKNOWN or thing is None:
        return False
    match thing:
        case Unloaded(path=path):
            pass
        case ModuleType():
            path = thing.__name__
        case type() | FunctionType():
            path = thing.__module__ or ""
        case _:
            path = type(thing).__module__
    return path.partition(".")[0] in IO_PACKAGES or any(path.startswith(module) for module in IO_MODULES)
