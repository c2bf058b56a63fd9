"""The last try of what two workers died of is alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from perdure._worker.ward import Ward
from perdure_runtime.ports import Consumer, Delivery

pytestmark = pytest.mark.asyncio


class Hands:
    """A consumer that remembers what was handed back."""

    def __init__(self) -> None:
        self.back: list[Delivery] = []

    async def nack(self, deliveries: Sequence[Delivery], delay_ms: int) -> None:
        assert delay_ms > 0
        self.back += deliveries


def delivery(deaths: int) -> Delivery:
    return Delivery(topic="t", message=cast(Any, None), redeliveries=deaths, deaths=deaths)


async def test_it_gets_in_alone_and_the_next_one_when_it_has_left() -> None:
    ward, hands = Ward(), Hands()
    consumer = cast(Consumer, hands)
    clean, once, suspect, other = delivery(0), delivery(1), delivery(2), delivery(2)
    assert await ward.admit([clean, suspect, once, other], consumer) == [suspect]
    assert hands.back == [clean, once, other]
    assert await ward.admit([other, clean], consumer) == [clean], "who comes later counts one death at most"
    assert hands.back[3:] == [other]
    ward.leave([clean])
    assert await ward.admit([other], consumer) == []
    ward.leave([suspect])
    assert await ward.admit([other], consumer) == [other]


async def test_others_do_not_notice_it() -> None:
    ward, hands = Ward(), Hands()
    given = [delivery(0), delivery(1), delivery(3)]
    assert await ward.admit(given, cast(Consumer, hands)) == given
    assert hands.back == []
