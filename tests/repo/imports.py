"""Which modules nobody imports: a module that neither the code, nor a test, nor an example uses is dead."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

ENTRY_POINTS = {"__init__", "__main__", "conftest"}


def dead(sources: Mapping[str, str]) -> list[str]:
    """Of the files (path: content), those that are started or collected by nobody and imported by no other."""
    imported = {module for name, source in sources.items() for module in _imports(name, source)}
    return [
        name for name, source in sources.items() if not _is_started(name, source) and module_of(name) not in imported
    ]


def module_of(name: str) -> str:
    parts = PurePosixPath(name).with_suffix("").parts
    if "src" in parts:
        parts = parts[parts.index("src") + 1 :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_started(name: str, source: str) -> bool:
    stem = PurePosixPath(name).stem
    return (
        stem in ENTRY_POINTS
        or stem.startswith("test_")
        or '__name__ == "__main__"' in source
        or any(part in name for part in ("/data/", "/cases/"))
    )


def _imports(name: str, source: str) -> Iterator[str]:
    own = module_of(name)
    package = own if name.endswith("__init__.py") else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = {alias.name for alias in names}
            case ast.ImportFrom(module=module, level=level, names=names):
                base = _absolute(package, module or "", level)
                found = {base} | {f"{base}.{alias.name}" for alias in names}
            case ast.Constant(value=str(text)) if text.replace(".", "").replace("_", "").isalnum() and "." in text:
                found = {text, text.removesuffix(".py")}  # named in a call: `python -m a.b`, `with_name("app.py")`
            case _:
                continue
        beside = {f"{package}.{module}" for module in found}  # a script imports what lies in its own folder
        yield from (found | beside) - {own}


def _absolute(package: str, module: str, level: int) -> str:
    if level == 0:
        return module
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - level + 1])
    return f"{base}.{module}" if module else base
