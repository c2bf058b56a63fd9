"""Waiting for servers that are away, wrong or not prepared when a process starts: it comes up once they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure_runtime.errors import StorageUnavailable

log = logging.getLogger("perdure.service")

_T = TypeVar("_T")
FIRST_DELAY_S = 0.5
DELAY_MAX_S = 10.0
"""A server that is back is noticed within this time, and one that is away for hours writes six lines a minute."""


async def patiently(what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
    """What the attempt returns, once one succeeds; each that fails is logged with its reason and the next one's time.

    Args:
        what: what cannot be done meanwhile, for the log.
        attempt: may be repeated. Raises StorageUnavailable for what may pass by itself; any other error ends the wait.
    """
    delay = FIRST_DELAY_S
    while True:
        try:
            return await attempt()
        except StorageUnavailable as error:
            extra = {"action": "waiting", "error": str(error), "again_in_s": delay}
            log.warning("cannot %s yet: trying again in %.1f s", what, delay, extra=extra)
        await asyncio.sleep(delay)
        delay = min(2 * delay, DELAY_MAX_S)
