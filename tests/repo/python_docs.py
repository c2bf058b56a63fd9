"""What docstrings and source say of a public name, read for docs/reference/python.md."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_HEADING = re.compile(r"^(Args|Returns|Raises(?:, as do the others)?):$")
_ENTRY = re.compile(r"^    ([\w, *]+): (.*)$")
_NOT_MADE_BY_USERS = ("Made by", "Use `", "Programs use `")


class Undocumented(Exception):
    """A public name without a docstring."""


def text(documented: Any, name: str) -> str:
    """Its docstring as Markdown: arguments and errors become lists.

    Raises:
        Undocumented: it has none of its own.
    """
    told = inspect.cleandoc(documented.__doc__ or "")
    if not told:
        raise Undocumented(name)
    lines: list[str] = []
    section = ""
    for line in told.splitlines():
        if heading := _HEADING.match(line):
            section = heading[1]
            lines += [{"Args": "", "Returns": "Returns:"}.get(section, f"{section}:"), ""]
        elif section and (entry := _ENTRY.match(line)):
            lines.append(f"- {_names(entry[1])}: {entry[2]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}" if lines[-1] else f"- {line.strip()}")
        else:
            section = ""
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _names(told: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in told.split(","))


def signature(name: str, fn: Callable[..., Any], *, bound: bool = False) -> str:
    """As one would write it, without what says nothing. `bound`: without its first parameter."""
    plain = inspect.unwrap(fn)
    asynchronous = "await " if inspect.iscoroutinefunction(plain) else ""
    told = inspect.signature(plain)
    parameters = list(told.parameters.values())[1 if bound else 0 :]
    shown = [_parameter(each) for each in parameters if each.name != "self"]
    returned = _returned(plain, told)
    return _folded(f"{asynchronous}{name}", str(told.replace(parameters=shown, return_annotation=told.empty)), returned)


def _parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    hint = parameter.annotation
    if isinstance(hint, str):
        hint = re.sub(r"^Unpack\[(\w+)\]$", r"\1", hint)
        hint = inspect.Parameter.empty if hint in {"Any", "P.args", "P.kwargs"} else _Bare(hint)
    default = parameter.default
    if default is not parameter.empty and isinstance(default, type | typing._SpecialForm):
        default = _Bare(getattr(default, "__name__", str(default)))
    return parameter.replace(annotation=hint, default=default)


class _Bare:
    """Shown as it is, without quotes."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


def _returned(fn: Callable[..., Any], told: inspect.Signature) -> str:
    """That of its overloads, if those that are exact agree."""
    overloads = {str(inspect.signature(each).return_annotation) for each in typing.get_overloads(fn)}
    exact = [each for each in overloads if "Any" not in each]
    found = exact[0] if len(exact) == 1 else str(told.return_annotation)
    return "" if found in {"Any", "None", str(inspect.Signature.empty)} else f" -> {found}"


def _folded(name: str, parameters: str, returned: str) -> str:
    """One line if it fits, else a line for each parameter."""
    line = f"{name}{parameters}{returned}"
    if len(line) <= 110 or parameters == "()":
        return line
    inner, depth, parts = parameters[1:-1], 0, [""]
    for character in inner:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return f"{name}(\n" + "".join(f"    {part.strip()},\n" for part in parts) + f"){returned}"


def _source(cls: type) -> ast.ClassDef:
    found = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(found, ast.ClassDef)
    return found


def data_bases(cls: type) -> list[type]:
    """Those that its source names: a TypedDict forgets what it derives from."""
    named = [getattr(inspect.getmodule(cls), ast.unparse(base), None) for base in _source(cls).bases]
    ours = [base for base in named if isinstance(base, type) and base.__module__.startswith("perdure")]
    return [base for base in ours if is_data(base)]


@dataclass(frozen=True)
class Field:
    """An attribute. Empty: not told."""

    name: str
    type: str
    default: str
    meaning: str


def fields(cls: type) -> Iterator[Field]:
    """Its attributes, in order: in the class, in `__init__`, then its properties."""
    found = _source(cls)
    yield from _assigned(found.body)
    for method in found.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            yield from _assigned(method.body)
    for name, member in vars(cls).items():
        if isinstance(member, property) and not name.startswith("_"):
            hint = str(inspect.signature(member.fget).return_annotation) if member.fget else ""
            yield Field(name, hint, "", " ".join(text(member, f"{cls.__name__}.{name}").split()))


def variables(module: ModuleType) -> dict[str, str]:
    """What a module's variables mean."""
    return {each.name: each.meaning for each in _assigned(ast.parse(inspect.getsource(module)).body) if each.meaning}


def _assigned(body: list[ast.stmt]) -> Iterator[Field]:
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        if not name or name.startswith("_"):
            continue
        hint, value = getattr(statement, "annotation", None), getattr(statement, "value", None)
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = " ".join(inspect.cleandoc(str(following.value.value)).split())
        yield Field(name, ast.unparse(hint) if hint else "", ast.unparse(value) if value else "", meaning)


def is_made_by_users(cls: type) -> bool:
    """Whether programs call its constructor, and its fields do not tell how."""
    made = vars(cls).get("__init__")
    return made is not None and not is_data(cls) and not (made.__doc__ or "").startswith(_NOT_MADE_BY_USERS)


def is_data(cls: type) -> bool:
    """A dataclass, a struct or a TypedDict: its fields are all there is."""
    return any(hasattr(cls, mark) for mark in ("__dataclass_fields__", "__struct_fields__", "__total__"))


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Its public methods, in the order of the source, those of our own bases last."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("perdure"):
            continue
        for name, member in vars(base).items():
            is_method = inspect.isfunction(member) or isinstance(member, classmethod)
            if is_method and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, member
