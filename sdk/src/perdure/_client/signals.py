"""Signals of one client apply in the order in which it sent them."""

from __future__ import annotations

import asyncio
import logging

from perdure._client.requests import Question, Requests
from perdure_runtime.workflow_round import UNBORN_TTL_MS
from perdure_schemas import topics
from perdure_schemas.common import Payload
from perdure_schemas.messages import CommandReply, SendSignal

log = logging.getLogger("perdure.client")


def tell_kept(reply: CommandReply, workflow_id: str, channel: str) -> None:
    """Logs a warning, if the signal found no run."""
    if told := kept(reply, workflow_id, channel):
        log.warning("%s", told, extra={"action": "signal_kept", "workflow_id": workflow_id})


def kept(reply: CommandReply, workflow_id: str, channel: str) -> str:
    """What to tell of a signal that found no run, which may be a slip of the pen; empty: it found one."""
    if reply.status != "ok" or reply.run_id:
        return ""
    return (
        f"there is no run of workflow id {workflow_id!r} yet: the signal on channel {channel!r} is kept for "
        f"{UNBORN_TTL_MS // 60_000} minutes, for the run that is started under it by then"
    )


class _Lane:
    """The signals to one workflow id whose answers are due."""

    __slots__ = ("last", "lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.last = 0
        """The number of the last one that the broker has confirmed."""
        self.users = 0


class Signals:
    """Numbers signals. While answers are due, a signal names the one before it; once they are recorded it need not."""

    def __init__(self, requests: Requests, sender: str) -> None:
        self._requests = requests
        self._sender = sender
        self._count = 0
        self._lanes: dict[str, _Lane] = {}

    async def send(self, workflow_id: str, channel: str, payload: Payload, run_id: str) -> CommandReply:
        """Returns the engine's answer: recorded, or why not."""
        lane = self._lanes.setdefault(workflow_id, _Lane())
        lane.users += 1
        try:
            async with lane.lock:
                self._count += 1
                body = SendSignal(
                    workflow_id=workflow_id,
                    channel=channel,
                    payload=payload,
                    sender=self._sender,
                    number=self._count,
                    after_number=lane.last,
                    run_id=run_id,
                    reply_topic=self._requests.reply_topic,
                )
                question = await self._publish(body)
                lane.last = body.number
            try:
                reply: CommandReply = await question.answer
                return reply
            finally:
                question.close()
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[workflow_id]

    async def _publish(self, body: SendSignal) -> Question:
        requests = self._requests
        message = requests.message(body.workflow_id, body)
        question = requests.question(message.id)
        try:
            await requests.backend.publish(topics.WORKFLOW_ENGINE, message)
        except BaseException:
            question.close()
            raise
        question.repeat(topics.WORKFLOW_ENGINE, lambda: message)
        question.end_in_silence()
        return question
