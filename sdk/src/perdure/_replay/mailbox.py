"""Signals of one channel: kept in order until somebody receives them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from perdure._replay.futures import Regainable
from perdure.errors import SerializationError
from perdure_schemas.common import Payload

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop

T = TypeVar("T")

Decode = Callable[[Payload], Any]
Accept = Callable[[Any], bool]
log = logging.getLogger("perdure.workflow")


class Receipt(Regainable[T]):
    """The next signal of a channel. Canceled before it came, it takes none; nor does it, once another member of an
    `any_of` was first, before it is waited for again.
    """

    __slots__ = ("_box", "accept", "decode")

    def __init__(self, loop: ReplayLoop, box: Mailbox, decode: Decode, accept: Accept | None) -> None:
        self.decode = decode
        self.accept = accept
        self._box = box
        super().__init__(loop=loop)
        box.receive(self)

    def lost(self) -> None:
        super().lost()
        self._box.withdraw(self)

    def regained(self) -> None:
        if self._lost:  # else it is still in line
            super().regained()
            self._box.receive(self)

    def offer(self, payload: Payload) -> bool:
        """Whether it took the signal.

        Raises:
            SerializationError: it is not of this receiver's type.
        """
        try:
            value = self.decode(payload)
        except SerializationError:
            raise
        except Exception as error:  # the code's mistake, and so raised where the code awaits it
            self.set_exception(error)
            return True
        try:
            if self.accept is not None and not self.accept(value):
                return False
        except Exception as error:
            self.set_exception(error)
            return True
        self.set_result(value)
        return True


class Mailbox:
    """Buffers signals, hands each to the first receiver that accepts it.

    One that no receiver can read is dropped with a warning, as soon as one has tried: whoever can send to a run must
    not be able to stop it.
    """

    __slots__ = ("_loop", "_name", "_receivers", "_signals")

    def __init__(self, loop: ReplayLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._signals: deque[tuple[int, Payload]] = deque()
        self._receivers: list[Receipt[Any]] = []

    def put(self, seq: int, payload: Payload) -> None:
        """A signal has come."""
        unread: SerializationError | None = None
        for index, receiver in enumerate(self._receivers):
            try:
                if receiver.done() or not receiver.offer(payload):
                    continue
            except SerializationError as error:
                unread = error
                continue
            del self._receivers[index]
            self._forget_ended()
            return
        if unread is None:
            self._signals.append((seq, payload))
        else:
            self._dropped(seq, unread)

    def receive(self, receipt: Receipt[Any]) -> None:
        """Give the first buffered signal that it accepts, or the next that comes."""
        kept: deque[tuple[int, Payload]] = deque()
        signals = self._signals
        while signals:
            seq, payload = signals.popleft()
            try:
                taken = receipt.offer(payload)
            except SerializationError as error:
                self._dropped(seq, error)
                continue
            if taken:
                signals.extendleft(reversed(kept))
                return
            kept.append((seq, payload))
        self._signals = kept
        self._receivers.append(receipt)

    def withdraw(self, receipt: Receipt[Any]) -> None:
        """Give it none."""
        self._receivers = [receiver for receiver in self._receivers if receiver is not receipt]

    def _dropped(self, seq: int, error: SerializationError) -> None:
        if self._loop.replaying:  # told when it was dropped first
            return
        context = self._loop.context
        log.warning(
            "run %s dropped event %d, a signal on channel %s: %s",
            context.workflow_id,
            seq,
            self._name,
            error,
            extra={"workflow_id": context.workflow_id, "run_id": context.run_id},
        )

    def _forget_ended(self) -> None:
        if any(receiver.done() for receiver in self._receivers):
            self._receivers = [receiver for receiver in self._receivers if not receiver.done()]

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a signal."""
        self._forget_ended()
        return bool(self._receivers)

    @property
    def unreceived(self) -> list[int]:
        """Seqs of the signals nobody has received."""
        return [seq for seq, _ in self._signals]

    def close(self) -> None:
        """Let go of what waits."""
        for receiver in self._receivers:
            receiver.cancel()
        self._receivers.clear()
        self._signals.clear()
