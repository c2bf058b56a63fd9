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
        AppNotFound: as `check`, or there is no such module. What the module itself raises passes through.
    """
    check(app)
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


def check(app: str) -> None:
    """Without importing anything.

    Raises:
        AppNotFound: it is no file, nor can it name a module.
    """
    path = Path(app)
    if path.suffix == ".py" and not path.is_file():
        raise AppNotFound(f"there is no application {app!r}: there is no file of that name")
    if path.is_file() or all(part.isidentifier() for part in app.split(".")):
        return
    if path.is_dir():
        raise AppNotFound(f"{app!r} is a folder, and an application a file in it, or an importable module")
    raise AppNotFound(f"there is no application {app!r}: neither a file nor an importable module")


def _load_file(path: Path) -> ModuleType:
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


def brief(error: BaseException) -> str:
    """An error at loading in one line, with the user's line that it came from."""
    if isinstance(error, PerdureError):
        return str(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    line = next((frame for frame in reversed(frames) if _is_of_user(Path(frame.filename))), None)
    if line is None or isinstance(error, SyntaxError):  # which tells its own line
        return text
    return f"{text} ({Path(line.filename).name}, line {line.lineno})"


def source_files() -> list[Path]:
    """Files of imported modules that are the user's: not in an installation folder, not of this package."""
    files = []
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not name or not name.endswith(".py"):
            continue
        path = Path(name).resolve()
        if _is_of_user(path):
            files.append(path)
    return files


def _is_of_user(path: Path) -> bool:
    own = Path(__file__).resolve().parent
    return not ("site-packages" in path.parts or path.is_relative_to(sys.base_prefix) or path.is_relative_to(own))
