"""Loading the user's application: `app.py`, `package.module`, or either with `:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from perdure.cli.output import ExitCode, Problem


def load(app: str) -> ModuleType:
    """Imports the module that `app` names, as a program started beside it would.

    Raises:
        Problem: there is no such file or module. What the module itself raises passes through.
    """
    path = Path(app)
    if path.suffix == ".py" or path.is_file():
        return _load_file(path)
    sys.path.insert(0, "")
    try:
        return importlib.import_module(app)
    except ModuleNotFoundError as error:
        if error.name is None or not app.startswith(error.name):
            raise
        raise _missing(app) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _missing(str(path))
    folder = path.resolve().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise _missing(str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _missing(app: str) -> Problem:
    return Problem(
        f"no application {app!r}: neither a file nor an importable module",
        hint="perdure dev app.py   (a file), or   perdure dev package.module",
        code=ExitCode.usage,
    )


def source_files() -> list[Path]:
    """Files of imported modules that are the user's: not in an installation folder, not of this package."""
    own = Path(__file__).resolve().parents[1]
    files = []
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not name or not name.endswith(".py"):
            continue
        path = Path(name).resolve()
        if "site-packages" in path.parts or path.is_relative_to(sys.base_prefix) or path.is_relative_to(own):
            continue
        files.append(path)
    return files
