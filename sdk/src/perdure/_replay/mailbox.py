"""Signals of one channel: kept in order until somebody receives them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from perdure._replay.futures import ReplayFuture
from perdure_schemas.common import Payload

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop

T = TypeVar("T")

Decode = Callable[[Payload], Any]
Accept = Callable[[Any], bool]


class Receipt(ReplayFuture[T]):
    """The next signal of a channel. Canceled before it came, it takes none."""

    __slots__ = ("accept", "decode")

    def __init__(self, loop: ReplayLoop, decode: Decode, accept: Accept | None) -> None:
        self.decode = decode
        self.accept = accept
        super().__init__(loop=loop)

    def offer(self, payload: Payload) -> bool:
        """Whether it took the signal. A payload that cannot be decoded is taken and raises where it is awaited."""
        try:
            value = self.decode(payload)
            if self.accept is not None and not self.accept(value):
                return False
        except Exception as error:
            self.set_exception(error)
            return True
        self.set_result(value)
        return True


class Mailbox:
    """Buffers signals, hands each to the first receiver that accepts it."""

    __slots__ = ("_receivers", "_signals")

    def __init__(self) -> None:
        self._signals: deque[tuple[int, Payload]] = deque()
        self._receivers: list[Receipt[Any]] = []

    def put(self, seq: int, payload: Payload) -> None:
        """A signal has come."""
        for index, receiver in enumerate(self._receivers):
            if not receiver.done() and receiver.offer(payload):
                del self._receivers[index]
                self._forget_ended()
                return
        self._signals.append((seq, payload))

    def receive(self, receipt: Receipt[Any]) -> None:
        """Give the first buffered signal that it accepts, or the next that comes."""
        signals = self._signals
        for index, (_, payload) in enumerate(signals):
            if receipt.offer(payload):
                del signals[index]
                return
        self._receivers.append(receipt)

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
