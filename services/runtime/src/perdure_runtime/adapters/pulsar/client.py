"""The connection to the brokers, and what comes back from its threads.

The library calls back on threads of its own. What they bring is put into a queue, and the event loop is woken once for
all that arrived meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pulsar

from perdure_runtime.adapters.pulsar.settings import PulsarSettings

_OPERATION_TIMEOUT_S = 30
_QUIET = pulsar.LoggerLevel.Warn


def open_client(settings: PulsarSettings) -> pulsar.Client:
    """Connects lazily: an unreachable broker shows at the first producer or consumer."""
    tls = settings.url.startswith("pulsar+ssl")
    return pulsar.Client(
        settings.url,
        authentication=_authentication(settings),
        listener_name=settings.listener or None,
        operation_timeout_seconds=_OPERATION_TIMEOUT_S,
        tls_trust_certs_file_path=settings.tls_ca or None,
        tls_validate_hostname=tls,
        tls_private_key_file_path=settings.tls_key or None,
        tls_certificate_file_path=settings.tls_certificate or None,
        logger=pulsar.ConsoleLogger(_QUIET),
    )


def _authentication(settings: PulsarSettings) -> pulsar.Authentication | None:
    if settings.token:
        return pulsar.AuthenticationToken(settings.token)
    if settings.oauth2:
        return pulsar.AuthenticationOauth2(settings.oauth2)
    return None


class Bridge:
    """Calls from any thread, made on one loop, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._woken = False

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """From any thread; never fails, since an exception in the library's threads ends the process."""
        self._calls.append((function, args))
        with self._lock:
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            pass  # the loop was closed: nobody waits any more

    def _run(self) -> None:
        with self._lock:
            self._woken = False
        while self._calls:
            function, args = self._calls.popleft()
            function(*args)
