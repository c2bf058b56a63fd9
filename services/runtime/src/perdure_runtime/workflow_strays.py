"""Signals that runs send to others: no code waits for an answer, so the log tells of those that found nobody."""

from __future__ import annotations

import logging

from perdure_runtime.workflow_round import UNBORN_TTL_MS
from perdure_schemas.messages import Message, SendSignal

log = logging.getLogger("perdure.workflow_engine")


def tell_lost(message: Message) -> None:
    """It came to a run that has ended, if it is such a signal."""
    _tell(message, "signal_lost", "which has ended: it is lost")


def tell_kept(message: Message) -> None:
    """It came to a workflow id without a run, if it is such a signal."""
    _tell(message, "signal_kept", f"of which there is none: it is kept for {UNBORN_TTL_MS // 60_000} minutes")


def _tell(message: Message, action: str, found: str) -> None:
    body = message.body
    if not isinstance(body, SendSignal) or body.reply_topic:
        return
    facts = {"action": action, "workflow_id": body.workflow_id, "channel": body.channel, "sender": body.sender}
    log.warning(
        "run %s sent a signal on channel %r to the run of workflow id %r, %s",
        body.sender,
        body.channel,
        body.workflow_id,
        found,
        extra=facts,
    )
