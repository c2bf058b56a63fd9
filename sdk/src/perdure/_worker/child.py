"""A process that runs tasks of mode "process" for a worker, one at a time.

`python -m perdure._worker.child FD`: FD is a socket to the worker. Functions come by name, not by pickle; a module that
cannot be imported by its name (an app given as a file) is loaded from its file.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from msgspec.structs import replace

from perdure.failures import failure_from_exception
from perdure.task import Task
from perdure_schemas.common import Failure, Payload


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `path` is `sys.path` of the worker."""

    module: str
    file: str
    qualname: str
    name: str
    args: Payload
    non_retryable: list[str]
    path: list[str]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    result: Payload | None = None
    failure: Failure | None = None


_LOADED: dict[str, Any] = {}


def main(fd: int) -> None:
    """Serve calls until the worker closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which ends us by closing its end
    connection = Connection(fd)
    decoder = msgspec.msgpack.Decoder(Call)
    while True:
        try:
            call = decoder.decode(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        connection.send_bytes(msgspec.msgpack.encode(run(call)))


def run(call: Call) -> Result:
    """Never raises, whatever user code does."""
    try:
        task = resolve(call)
        values = task.signature.decode(call.args)
    except BaseException as error:
        return Result(failure=replace(failure_from_exception(error), retryable=False))
    try:
        result = task.signature.call(task.fn, values)
    except BaseException as error:
        trace = error.__traceback__
        shown = error.with_traceback(trace.tb_next or trace) if trace is not None else error
        return Result(failure=failure_from_exception(shown, non_retryable=call.non_retryable))
    try:
        return Result(result=task.signature.encode_result(result))
    except Exception as error:
        return Result(failure=replace(failure_from_exception(error), retryable=False))


def resolve(call: Call) -> Task[..., Any]:
    """The task of that name in its module."""
    sys.path[:] = call.path
    found: Any = _module(call)
    for part in call.qualname.split("."):
        found = getattr(found, part)
    if not isinstance(found, Task):
        raise TypeError(f"{call.module}.{call.qualname} is no task; a task of mode 'process' must be found by its name")
    return found


def _module(call: Call) -> Any:
    known = _LOADED.get(call.module)
    if known is not None:
        return known
    module = None
    if call.module != "__main__":
        try:
            module = importlib.import_module(call.module)
        except ModuleNotFoundError:
            module = None
    if module is None or (call.file and getattr(module, "__file__", None) != call.file):
        module = _from_file(call)
    _LOADED[call.module] = module
    return module


def _from_file(call: Call) -> Any:
    # Not as `__main__`, so that `if __name__ == "__main__":` does not start the program once more.
    name = "__perdure_main__" if call.module == "__main__" else call.module
    spec = importlib.util.spec_from_file_location(name, call.file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{call.file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(int(sys.argv[1]))
