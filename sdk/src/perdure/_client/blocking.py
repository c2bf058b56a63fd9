"""The async classes of the client made blocking, each method as it is called: `perdure.sync` has their types."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from perdure.errors import NotInWorkflow, PerdureError
from perdure.handle import Handle, TaskHandle

if TYPE_CHECKING:
    from perdure.client import Client

T = TypeVar("T")
R = TypeVar("R")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def check_open(self) -> asyncio.AbstractEventLoop:
        """Raises PerdureError unless it runs."""
        if self._loop is None:
            raise PerdureError("the blocking client is not open: use it inside `with Client….sync as client:`")
        return self._loop

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perdure client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for it here. A KeyboardInterrupt meanwhile cancels it there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.check_open())
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        loop, self._loop = self.check_open(), None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()


class Blocking:
    """An async object whose methods block. Handles that they return are such objects too."""

    def __init__(self, target: Any, loop: _Loop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _blocking(getattr(self._target, name), self._loop)

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"


class SyncHandle(Blocking, Generic[R]):
    """A run of a workflow: what `Handle` has, without `await`."""


class SyncTaskHandle(Blocking, Generic[R]):
    """A stand-alone task: what `TaskHandle` has, without `await`."""


def _blocking(value: Any, loop: _Loop) -> Any:
    if isinstance(value, Handle):
        return SyncHandle(value, loop)
    if isinstance(value, TaskHandle):
        return SyncTaskHandle(value, loop)
    if not inspect.ismethod(value):
        return value

    @functools.wraps(value)
    def call(*args: Any, **kwargs: Any) -> Any:
        if asyncio._get_running_loop() is not None:
            raise NotInWorkflow("the blocking client would block this event loop: use the async one here")
        loop.check_open()
        result = value(*args, **kwargs)
        return _blocking(loop.run(result) if inspect.iscoroutine(result) else result, loop)

    return call


class SyncClient(Blocking):
    """A client for programs without an event loop; any thread may use it.

    It has what `Client` has, under the same names and without `await`: each call waits here for what it returns.
    The handles that it returns are a `SyncHandle` or a `SyncTaskHandle`, and block as well.
    """

    def __init__(self, client: Client) -> None:
        """Use `Client.sync`."""
        super().__init__(client, _Loop())

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._loop.run(self._target.__aenter__())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._target.__aexit__(kind, error, trace))
        finally:
            self._loop.close()
