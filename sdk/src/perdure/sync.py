"""The blocking face of the client: the async one on an event loop in a thread of its own.

    with Client.embedded(my_app).sync as client:
        print(client.execute(order, "sku-1"))

It is made from the async classes: whatever they can, it can, under the same names, without `await`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from perdure.errors import NotInWorkflow
from perdure.handle import Handle, TaskHandle

if TYPE_CHECKING:
    from perdure.client import Client

T = TypeVar("T")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perdure client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for it here. A KeyboardInterrupt meanwhile cancels it there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """An async object whose methods block. Handles that it returns are such objects too."""

    def __init__(self, target: Any, loop: _Loop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _blocking(getattr(self._target, name), self._loop)

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"


def _blocking(value: Any, loop: _Loop) -> Any:
    if isinstance(value, (Handle, TaskHandle)):
        return Blocking(value, loop)
    if not inspect.ismethod(value):
        return value

    @functools.wraps(value)
    def call(*args: Any, **kwargs: Any) -> Any:
        if asyncio._get_running_loop() is not None:
            raise NotInWorkflow("the blocking client would block this event loop: use the async one here")
        result = value(*args, **kwargs)
        return _blocking(loop.run(result) if inspect.iscoroutine(result) else result, loop)

    return call


class SyncClient(Blocking):
    """A client for programs without an event loop; any thread may use it.

    It has what `Client` has, under the same names and without `await`: each call waits here for what it returns.
    The handles that it returns are such objects, too.
    """

    def __init__(self, client: Client) -> None:
        """Use `Client.sync`."""
        self._target = client

    def __enter__(self) -> Self:
        self._loop = _Loop()
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
