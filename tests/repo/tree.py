"""The files of the repository, as its own tests see them: what is built, cached or installed is not there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "perdure_schemas": ROOT / "schemas",
    "perdure_core": ROOT / "services/core",
    "perdure_runtime": ROOT / "services/runtime",
    "perdure": ROOT / "sdk",
    "perdure_api": ROOT / "services/api",
    "perdure_projector": ROOT / "services/projector",
    "perdure_task_engine": ROOT / "services/task-engine",
    "perdure_timer": ROOT / "services/timer",
    "perdure_workflow_engine": ROOT / "services/workflow-engine",
    "perdure_operator": ROOT / "operator",
}
"""Where each package's project lies, in the order of the layers, lowest first."""
SDK = ("perdure_schemas", "perdure_core", "perdure_runtime", "perdure")
"""What `import perdure` needs; the others are processes of a cluster."""
_NOT_OURS = {".git", ".venv", "build", "dist", "__pycache__"}


@cache
def files() -> tuple[Path, ...]:
    return tuple(sorted(_walk(ROOT)))


def python_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".py"]


def markdown_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def texts() -> Iterator[tuple[str, str]]:
    """(path from the root, content) of every file that is text."""
    for path in files():
        try:
            yield name_of(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in _NOT_OURS or path.name.endswith((".egg-info", "_cache")) or path.name == ".hypothesis":
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.suffix not in {".sqlite", ".sqlite-wal", ".sqlite-shm"}:
            yield path
