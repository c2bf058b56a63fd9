"""Publishing: what comes while a publish is under way goes together in the next one."""

from __future__ import annotations

import asyncio
import logging

from perdure.errors import PayloadTooLarge, PerdureError, Unavailable
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable
from perdure_runtime.ports import Publisher
from perdure_schemas.messages import Message

log = logging.getLogger("perdure.client")

RETRY_SECONDS_FIRST = 0.05
RETRY_SECONDS_MAX = 2.0
PUBLISH_SECONDS_MAX = 30.0
"""An outage of a broker node ends by then; a longer one is the caller's to know of."""
TELL_SECONDS = 1.0
"""What a person takes for a pause; then who waits is told for what."""


class Outbox:
    """Publishes messages in the order they are posted, retrying while the broker is unavailable.

    A message keeps its id over retries, so a publish that was stored though not confirmed does no harm.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: list[tuple[str, Message, asyncio.Future[None]]] = []
        self._posted_at = 0.0
        """When the first of those that wait was posted."""
        self._flush: asyncio.Task[None] | None = None

    def post(self, topic: str, message: Message) -> asyncio.Future[None]:
        """Publish soon; the future ends when the message is durable.

        Its errors: Unavailable, PayloadTooLarge.
        """
        loop = asyncio.get_running_loop()
        confirmed: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            self._posted_at = loop.time()
        self._waiting.append((topic, message, confirmed))
        if self._flush is None:
            self._flush = loop.create_task(self._run())
        return confirmed

    async def close(self) -> None:
        """Wait until everything posted is published, or has failed."""
        if self._flush is not None:
            await self._flush

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._publish(batch, self._posted_at)
        finally:
            self._flush = None

    async def _publish(self, batch: list[tuple[str, Message, asyncio.Future[None]]], posted_at: float) -> None:
        try:
            await self._publish_patiently([(topic, message) for topic, message, _ in batch], posted_at)
        except MessageTooLarge as error:
            await self._publish_singly(batch, posted_at, error)
        except Exception as error:
            for _, _, confirmed in batch:
                fail(confirmed, _translated(error))
        else:
            for _, _, confirmed in batch:
                if not confirmed.done():
                    confirmed.set_result(None)

    async def _publish_patiently(self, pairs: list[tuple[str, Message]], began: float) -> None:
        """`began`: when patience did. What waited behind another batch in an outage has used some of it up."""
        loop = asyncio.get_running_loop()
        delay = RETRY_SECONDS_FIRST
        told = False
        while True:
            try:
                await self._publisher.publish(pairs)
                return
            except StorageUnavailable as error:
                waited = loop.time() - began
                if waited + delay > PUBLISH_SECONDS_MAX:
                    raise
                if waited > TELL_SECONDS and not told:
                    told = True
                    log.warning(
                        "not taken within %.1f s: %s; it is tried for %.0f s at most",
                        waited,
                        error,
                        PUBLISH_SECONDS_MAX,
                    )
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS_MAX)

    async def _publish_singly(
        self, batch: list[tuple[str, Message, asyncio.Future[None]]], posted_at: float, error: MessageTooLarge
    ) -> None:
        """None of the batch was published because of one: find it, and publish the others."""
        if len(batch) == 1:
            fail(batch[0][2], _translated(error))
            return
        for one in batch:
            await self._publish([one], posted_at)


def fail(confirmed: asyncio.Future[None], error: BaseException) -> None:
    """Its error, unless it is done."""
    if not confirmed.done():
        confirmed.set_exception(error)
        confirmed.exception()  # looked at here: whoever does not wait for it does not care


def _translated(error: Exception) -> PerdureError:
    match error:
        case MessageTooLarge():
            return PayloadTooLarge(f"{error}. Store the value yourself and pass a reference.")
        case StorageUnavailable():
            return Unavailable(f"not confirmed within {PUBLISH_SECONDS_MAX:.0f} s: {error}")
        case _:
            return Unavailable(f"the message could not be published: {error!r}")
