"""An application as the command line names it: `app.py`, or `package.module`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from perdure.errors import PerdureError


class AppNotFound(PerdureError):
    """There is neither such a file nor such an importable module."""


def load(app: str) -> ModuleType:
    """Imports the module that `app` names, as a program started beside it would.

    Raises:
        AppNotFound: there is no such file or module. What the module itself raises passes through.
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
        raise AppNotFound(f"there is no application {app!r}: neither a file nor an importable module") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise AppNotFound(f"there is no application {str(path)!r}: no such file")
    folder = path.resolve().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise AppNotFound(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def told(error: BaseException) -> str:
    """An error at loading, with the user's part of its traceback: how their file came to be imported is no news."""
    own = (str(Path(__file__).resolve().parent), "<frozen importlib")
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def source_files() -> list[Path]:
    """Files of imported modules that are the user's: not in an installation folder, not of this package."""
    own = Path(__file__).resolve().parent
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
